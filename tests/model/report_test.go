package model

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// report is what pan said of one search.
type report struct {
	states   float64
	found    property // "": nothing
	what     string   // the assertion that failed
	complete bool     // every state within the bounds was tried, or something was found
	trouble  string   // why it was not
}

var (
	statesLine    = regexp.MustCompile(`(?m)^\s*([0-9.e+]+) states, stored`)
	assertionLine = regexp.MustCompile(`(?m)^pan:\d+: assertion violated\s+!\(([a-z_]+)\)`)
	errorLine     = regexp.MustCompile(`(?m)^pan:\d+: (.*) \(at depth`)
	errorsLine    = regexp.MustCompile(`errors: (\d+)`)
)

// read reads pan's output. What it does not know is an error: a search that went wrong must not look like one that found nothing.
func read(out string) (report, error) {
	var r report
	m := statesLine.FindStringSubmatch(out)
	n := errorsLine.FindStringSubmatch(out)
	if m == nil || n == nil {
		return r, fmt.Errorf("pan did not report:\n%s", out)
	}
	r.states, _ = strconv.ParseFloat(m[1], 64)
	for _, sign := range []string{"out of memory", "max search depth too small", "search was not completed", "Search not completed", "hash table full", "VECTORSZ"} {
		if strings.Contains(out, sign) && n[1] == "0" {
			r.trouble = sign
		}
	}
	r.complete = r.trouble == ""
	if n[1] == "0" {
		return r, nil
	}
	e := errorLine.FindStringSubmatch(out)
	a := assertionLine.FindStringSubmatch(out)
	switch {
	case a != nil:
		r.found, r.what = safety, a[1]
	case e != nil && e[1] == "invalid end state":
		r.found = stuck
	case e != nil && strings.HasPrefix(e[1], "non-progress cycle"):
		r.found = livelock
	default:
		return r, fmt.Errorf("pan reports an error of another kind:\n%s", out)
	}
	return r, nil
}

// String is the finding, for the table.
func (r report) String() string {
	switch r.found {
	case "":
		if r.complete {
			return "holds"
		}
		return "not finished: " + r.trouble
	case safety:
		return r.what
	case stuck:
		return "stuck"
	default:
		return string(r.found)
	}
}
