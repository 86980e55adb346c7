// Package doctor owns the check of a deployment before it is trusted: what is there, held against a table of rules.
//
// It promises that gathering (gather*.go) only reads and judging (rules*.go) is pure, that every finding says what was found, why it
// matters and what to do, and that what could not be looked at is named instead of passed over. It never changes anything.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// Severity says what a finding is worth.
type Severity string

// The severities, worst first.
const (
	Error       Severity = "error"       // loses, duplicates, stops, or does not start
	Warning     Severity = "warning"     // works until something else fails
	Development Severity = "development" // fine on a developer's machine and nowhere else; --dev accepts it
)

var severities = []Severity{Error, Warning, Development}

// Finding is a rule that a deployment breaks.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject,omitempty"` // the topic, table, setting it is about
	Found    string   `json:"found"`
	Why      string   `json:"why"`
	Run      string   `json:"run"`
}

// Unchecked is a rule that could not be held against anything, or only in part.
type Unchecked struct {
	Rule string `json:"rule"`
	Why  string `json:"why"`
}

// Report is what doctor has to say.
type Report struct {
	Verdict   string            `json:"verdict"` // clean, found, unable
	Findings  []Finding         `json:"findings"`
	Accepted  []Finding         `json:"accepted"` // development's, with --dev
	Unchecked []Unchecked       `json:"unchecked"`
	Unreached map[string]string `json:"unreached,omitempty"` // store: error
	Rules     int               `json:"rules"`
	Seen      map[string]string `json:"seen"` // versions and the like
	Notes     []string          `json:"notes"`
}

// Clean says that everything could be reached and nothing was found.
func (r *Report) Clean() bool { return r.Verdict == "clean" }

// Err names what could not be reached: nobody can say that such a deployment is well.
func (r *Report) Err() error {
	var all []string
	for store, why := range r.Unreached {
		all = append(all, store+" could not be looked at: "+why)
	}
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	return fmt.Errorf("%s", strings.Join(all, "\n"))
}

// Options say how to judge.
type Options struct {
	Dev     bool     // accept what is fine in development
	Environ []string // KEY=value, to find settings that are none
	Log     *zap.Logger
}

// Run gathers and judges. It returns an error only for what is wrong with the settings; what could not be reached is in the report.
func Run(ctx context.Context, c *config.Config, o Options) (*Report, error) {
	f, err := gather(ctx, c, o)
	if err != nil {
		return nil, err
	}
	return judge(f, o.Dev), nil
}

// judge holds the facts against every rule.
func judge(f *Facts, dev bool) *Report {
	r := &Report{Findings: []Finding{}, Accepted: []Finding{}, Unchecked: []Unchecked{}, Unreached: map[string]string{}, Rules: len(rules), Seen: f.seen(), Notes: notes}
	for i := range rules {
		rule := &rules[i]
		p := &probe{Facts: f, rule: rule}
		if why := f.unknown(rule.needs); why != "" {
			r.Unchecked = append(r.Unchecked, Unchecked{rule.name, why})
			continue
		}
		rule.check(p)
		for _, found := range p.findings {
			if found.Severity == Development && dev {
				r.Accepted = append(r.Accepted, found)
			} else {
				r.Findings = append(r.Findings, found)
			}
		}
		if len(p.missing) > 0 {
			r.Unchecked = append(r.Unchecked, Unchecked{rule.name, p.missed()})
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return slices.Index(severities, a.Severity) - slices.Index(severities, b.Severity)
	})
	for _, store := range []Part{Kafka, Registry, Postgres} {
		if why, is := f.Unknown[store]; is {
			r.Unreached[string(store)] = why
		}
	}
	switch {
	case len(r.Unreached) > 0:
		r.Verdict = "unable"
	case len(r.Findings) > 0:
		r.Verdict = "found"
	default:
		r.Verdict = "clean"
	}
	return r
}

// notes are what no rule can look at.
var notes = []string{
	"the brokers' clocks were not compared: no request tells them without writing",
	"how old your oldest Postgres backup is can't be seen: keep the output topics longer than that, or what a restored Postgres lacks is nowhere",
}
