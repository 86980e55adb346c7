package audit

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
)

//go:embed report.html.tmpl
var reportTemplate string

// what coverage is called for people
var coverageNames = map[string]string{
	"proven": "proven in both sinks", "owed": "captured, still owed to Kafka", "waiting": "waiting to be captured", "without_input": "held against what is left: retention removed the input", "out_of_reach": "out of reach: retention",
	"lost": "accepted as lost", "no_entry": "without a ledger entry", "doubtful": "something was found",
}

// plot is one partition's coverage as rectangles of an SVG of width plotWidth.
type plot struct {
	Partition  int32
	From, To   int64
	Bars       []bar
	Marks      []mark
	Says       string
	Empty      bool
	GroupAt    float64
	VerifiedAt float64
}

type bar struct {
	X, W      float64
	Is, Title string
}

type mark struct {
	X     float64
	Name  string
	Title string
}

const plotWidth = 1000.0

func plots(r *Report) (out []plot) {
	for _, p := range r.Partitions {
		pl := plot{Partition: p.Partition}
		if len(p.Coverage) == 0 {
			pl.Empty = true
			out = append(out, pl)
			continue
		}
		pl.From, pl.To = p.Coverage[0].From, p.Coverage[len(p.Coverage)-1].To
		at := func(o int64) float64 {
			return plotWidth * float64(min(max(o, pl.From), pl.To)-pl.From) / float64(pl.To-pl.From)
		}
		for _, c := range p.Coverage {
			b := bar{X: at(c.From), Is: c.Is, Title: fmt.Sprintf("[%d, %d): %s", c.From, c.To, coverageNames[c.Is])}
			b.W = max(at(c.To)-b.X, 0.75)
			if c.Is == "doubtful" || c.Is == "lost" { // must be seen, however short
				b.W = max(b.W, 3)
			}
			pl.Bars = append(pl.Bars, b)
		}
		pl.VerifiedAt = at(p.Verified)
		if p.Group >= pl.From {
			pl.Marks = append(pl.Marks, mark{at(p.Group), "group", fmt.Sprintf("group offset %d", p.Group)})
		}
		pl.Marks = append(pl.Marks, mark{at(p.Stored), "stored", fmt.Sprintf("stored offset %d", p.Stored)})
		pl.Says = fmt.Sprintf("Partition %d: offsets %d to %d, verified through %d, %d findings", p.Partition, pl.From, pl.To, p.Verified, p.Findings)
		out = append(out, pl)
	}
	return out
}

// WriteHTML writes the report as one page that needs nothing else: no script, no font, no picture from elsewhere.
func (r *Report) WriteHTML(w io.Writer) error {
	t := template.New("report").Funcs(template.FuncMap{
		"plots":   func() []plot { return plots(r) },
		"name":    func(c string) string { return coverageNames[c] },
		"covers":  func() []string { return Coverages },
		"classes": func() []Class { return Classes },
		"words":   func(s any) string { return strings.ReplaceAll(fmt.Sprint(s), "_", " ") },
		"n":       thousands,
		"time":    func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"px":      func(f float64) string { return fmt.Sprintf("%.2f", f) },
		"where":   func(f Finding) string { return f.Coordinate() },
		"group":   func(at int64) string { return map[bool]string{true: "none", false: thousands(at)}[at < 0] },
		"sinksOf": func(c Class) string { return r.sinksOf(c) },
		"all":     r.all,
		"rounded": func(d time.Duration) string { return d.Round(10 * time.Millisecond).String() },
		"verdict": func() string {
			s := strings.TrimPrefix(strings.TrimPrefix(r.Verdict, "NOT clean: "), "clean: ")
			return strings.ReplaceAll(strings.ToUpper(s[:1])+s[1:], "_", " ")
		},
		"isLost": func(d Deed) bool { return d.Kind == "accept_loss" || d.Kind == "reset" },
	})
	t, err := t.Parse(reportTemplate)
	if err != nil {
		return fmt.Errorf("audit: report template: %w", err)
	}
	if err := t.Execute(w, r); err != nil {
		return fmt.Errorf("audit: write the HTML report: %w", err)
	}
	return nil
}

func (r *Report) all() (n int64) {
	for _, v := range r.Found {
		n += v
	}
	return n
}

func (r *Report) sinksOf(c Class) string {
	var where []string
	for _, s := range Sinks {
		if n := r.BySink[c][s]; n > 0 {
			where = append(where, fmt.Sprintf("%s %d", strings.ReplaceAll(string(s), "_", " "), n))
		}
	}
	return strings.Join(where, ", ")
}

// thousands groups digits by narrow spaces.
func thousands(n any) string {
	s := fmt.Sprint(n)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return sign + s
}
