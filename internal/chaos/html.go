package chaos

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/audit"
)

//go:embed report.html.tmpl
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"number":  number,
	"seconds": func(ms int64) string { return fmt.Sprintf("%.1f s", seconds(ms)) },
	"spread": func(s Spread) template.HTML { // median, p99 and worst, each in its cell; of nothing, a dash
		if s.N == 0 {
			return template.HTML(strings.Repeat(`<td class="n">–</td>`, 3))
		}
		return template.HTML(fmt.Sprintf(`<td class="n">%.1f s</td><td class="n">%.1f s</td><td class="n">%.1f s</td>`, seconds(s.Median), seconds(s.P99), seconds(s.Worst)))
	},
	"minutes": func(ms int64) string {
		d := time.Duration(ms) * time.Millisecond
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	},
	"utc":   func(t time.Time) string { return t.Format("2006-01-02 15:04:05 UTC") },
	"words": func(s any) string { return strings.ReplaceAll(fmt.Sprint(s), "_", " ") },
	"plan":  func(f *Fault) string { return f.plan() },
	"join":  func(s []string) string { return strings.Join(s, "; ") },
}).Parse(page))

// number groups the digits by three.
func number(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// bar is one thing that a run has to come up to.
type bar struct {
	What, Wanted, Is string
	Met              bool
}

// class is one of the audit's, with where it was found.
type class struct {
	Name  string
	Means string
	N     int64
}

var means = map[audit.Class]string{
	audit.Missing: "owed to a sink and not there", audit.Duplicate: "there more than once", audit.Different: "two stores disagree about it",
	audit.Unexplained: "there without an input", audit.OutOfOrder: "in another order than the input", audit.Undecodable: "an event that is no enriched click",
	audit.Undecided: "hidden by an open transaction: could not be decided", audit.GroupAhead: "Kafka ahead of Postgres", audit.GroupBehind: "Kafka's position went back",
	audit.LedgerGap: "the ledger's entries do not add up", audit.LedgerChain: "the ledger's hashes do not", audit.LedgerDigest: "the outbox is not what the ledger was made of", audit.Miscounted: "clicks counted otherwise than there are rows", audit.Gap: "still owed or waiting at the end",
}

// HTML is the report as one page that needs nothing else.
func (r *Report) HTML() ([]byte, error) {
	var classes []class
	if r.Audit != nil {
		for _, c := range audit.Classes {
			classes = append(classes, class{string(c), means[c], r.Audit.Found[c]})
		}
	}
	var struck, beyond int
	for _, f := range r.Faults {
		if f.Confirmed != "" {
			struck++
		}
		if f.Confirmed != "" && !f.Recovered {
			beyond++
		}
	}
	zero := func(what string, n int64) bar { return bar{what, "0", number(n), n == 0 && r.Audit != nil} }
	bars := []bar{
		zero("Clicks lost", r.Lost), zero("Clicks doubled", r.Doubled), zero("Clicks different in the two sinks", r.Different), zero("Otherwise wrong", r.Other),
		zero("Undecided", r.Undecided), zero("Stuck (faults not recovered from, clicks left behind)", r.Stuck),
		{"Faults confirmed to have struck", fmt.Sprint(len(r.Faults)), fmt.Sprint(struck), struck == len(r.Faults)},
		{"Faults recovered from", fmt.Sprint(struck), fmt.Sprint(struck - beyond), beyond == 0},
		{"Takeover of a dead worker's partitions, 99th percentile", fmt.Sprintf("at most %.1f s", seconds(r.BarMs)), fmt.Sprintf("%.1f s", seconds(r.Takeover.P99)),
			r.Takeover.N > 0 && r.Takeover.P99 <= r.BarMs},
	}
	var out bytes.Buffer
	err := pageTemplate.Execute(&out, map[string]any{
		"R": r, "Bars": bars, "Classes": classes, "Line": template.HTML(r.timeline()), "Kills": r.Kills(), "Struck": struck, "Summary": r.summary(), //nolint:gosec // numbers and escaped text only
	})
	return out.Bytes(), err
}

func (r *Report) summary() string {
	var in int64
	if r.Audit != nil {
		in = r.Audit.Totals.Input
	}
	return fmt.Sprintf("%s clicks were processed while %d faults struck, %d workers ended by SIGKILL among them. The audit then read every topic and table again and "+
		"compared every click, one by one.", number(in), r.Struck(r.kinds()...), r.Kills())
}

func (r *Report) kinds() (out []Kind) {
	for _, k := range r.Kinds {
		out = append(out, Kind(k.Name))
	}
	return out
}

// Write writes chaos-report.html and chaos-report.json into dir and returns the first one's path.
func (r *Report) Write(dir string) (string, error) {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "chaos-report.json"), append(data, '\n'), 0o644); err != nil {
		return "", err
	}
	html, err := r.HTML()
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "chaos-report.html")
	return name, os.WriteFile(name, html, 0o644)
}
