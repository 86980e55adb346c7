package pages

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"

	"github.com/exactly-pipeline/exactly/internal/console/now"
)

func px(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }

// strip draws a partition: the input's end at the right edge, span offsets before it at the left, the same for all.
func strip(s now.Strip, span int64) template.HTML {
	const width = 1000.0
	var b strings.Builder
	says := fmt.Sprintf("Partition %d: input ends at %s, stored offset %s, group offset %s, gap %s, waiting %s",
		s.Partition, offset(s.End), offset(s.Stored), offset(s.Group), thousands(s.Gap), thousands(max(0, s.Lag)))
	fmt.Fprintf(&b, `<svg class="strip" viewBox="0 0 1000 22" preserveAspectRatio="none" role="img" aria-label="%s">`, template.HTMLEscapeString(says))
	at := func(offset int64) float64 {
		if offset < 0 || s.End < 0 {
			return 0
		}
		return min(max(width-width*float64(s.End-offset)/float64(span), 0), width)
	}
	group, stored := at(s.Group), at(s.Stored)
	if s.Stored > s.Group && stored-group < 3 { // there is a gap: it must be seen
		group = max(0, stored-3)
	}
	if s.End > s.Stored && width-stored < 3 {
		stored = width - 3
		group = min(group, stored)
	}
	rect := func(class string, from, to float64) {
		fmt.Fprintf(&b, `<rect class="%s" x="%s" y="0" width="%s" height="22"/>`, class, px(from), px(max(0, to-from)))
	}
	rect("both", 0, group)
	rect("owed", group, stored)
	rect("waiting", stored, width)
	mark := func(is int64, x float64) {
		class := "mark"
		if is < 0 {
			class = "none"
		}
		rect(class, max(0, x-1.5), min(width, max(1.5, x)+1))
	}
	mark(s.Group, group)
	mark(s.Stored, stored)
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // numbers, and a label that is escaped
}

// spark draws how a rate went.
func spark(values []float64) template.HTML {
	if len(values) < 2 {
		return ""
	}
	top := 1.0
	for _, v := range values {
		top = max(top, v)
	}
	var line strings.Builder
	for i, v := range values {
		fmt.Fprintf(&line, "%s,%s ", px(200*float64(i)/float64(len(values)-1)), px(42-40*v/top))
	}
	return template.HTML(`<svg class="spark" viewBox="0 0 200 44" preserveAspectRatio="none" aria-hidden="true"><polygon points="0,44 ` + line.String() + //nolint:gosec // numbers
		`200,44"/><polyline points="` + strings.TrimSpace(line.String()) + `"/></svg>`)
}

// bars draws counts over time.
func bars(values []int64) template.HTML {
	top := int64(1)
	for _, v := range values {
		top = max(top, v)
	}
	var b strings.Builder
	b.WriteString(`<svg class="bars" viewBox="0 0 240 30" preserveAspectRatio="none" aria-hidden="true">`)
	w := 240 / float64(max(1, len(values)))
	for i, v := range values {
		if v > 0 {
			h := max(2, 30*float64(v)/float64(top))
			fmt.Fprintf(&b, `<rect x="%s" y="%s" width="%s" height="%s"/>`, px(w*float64(i)), px(30-h), px(w*0.8), px(h))
		}
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // numbers
}
