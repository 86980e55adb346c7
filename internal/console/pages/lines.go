package pages

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/internal/console/chain"
	"github.com/exactly-pipeline/exactly/internal/heads"
)

// line draws a chain over time: how fast records were captured between the entries looked at, and people's deeds.
func line(l chain.Line, o *chain.Overview) template.HTML {
	span := max(o.To.Sub(o.From), time.Second)
	x := func(t time.Time) float64 { return min(max(1000*float64(t.Sub(o.From))/float64(span), 0), 1000) }
	fastest := 0.0
	for _, of := range o.Lines {
		eachStretch(of.Points, func(_, _ chain.Point, rate float64) { fastest = max(fastest, rate) })
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="line" viewBox="0 0 1000 24" preserveAspectRatio="none" role="img" aria-label="Partition %d: %d entries, %d deeds in this stretch of time">`,
		l.Partition, l.Seq-l.First+1, len(l.Deeds))
	eachStretch(l.Points, func(a, z chain.Point, rate float64) {
		if rate <= 0 || x(z.At) <= 0 {
			return
		}
		h := max(2.5, 22*rate/max(fastest, 1e-9))
		fmt.Fprintf(&b, `<rect class="flow" x="%s" y="%s" width="%s" height="%s"/>`, px(x(a.At)), px(24-h), px(max(1, x(z.At)-x(a.At))), px(h))
	})
	for i := range l.Deeds {
		d := &l.Deeds[i]
		if d.At.Before(o.From) {
			continue
		}
		class := "deed"
		if d.Loss() {
			class = "loss"
		}
		fmt.Fprintf(&b, `<rect class="%s" x="%s" y="0" width="4" height="24"><title>%s at %s</title></rect>`, class, px(min(996, x(d.At))), d.Kind, d.At.UTC().Format(time.RFC3339))
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // numbers, and kinds of entries
}

func eachStretch(ps []chain.Point, f func(a, z chain.Point, rate float64)) {
	for i := 1; i < len(ps); i++ {
		if d := ps[i].At.Sub(ps[i-1].At).Seconds(); d > 0 {
			f(ps[i-1], ps[i], float64(ps[i].Offset-ps[i-1].Offset)/d)
		}
	}
}

func hexShort(b any) string {
	s := fmt.Sprintf("%x", b)
	return s[:min(10, len(s))]
}

// head says whether a chain's newest head in Kafka agrees.
func head(hs []chain.Head, partition int32) template.HTML {
	for _, h := range hs {
		if h.Partition != partition {
			continue
		}
		chip := func(tone, says, more string) template.HTML {
			return template.HTML(fmt.Sprintf(`<span class="chip %s">%s</span><span class="why">%s</span>`, tone, says, template.HTMLEscapeString(more))) //nolint:gosec // escaped
		}
		switch behind := h.Newest - h.Seq; h.Is {
		case "agrees":
			more := "up to the newest entry"
			if behind > 0 {
				more = fmt.Sprintf("up to entry %s, %s behind", thousands(h.Seq), thousands(behind))
			}
			if h.Signed {
				more += ", signed"
			}
			return chip("good", "agrees", more)
		case "differs", "beyond the ledger":
			return chip("bad", h.Is, "entry "+thousands(h.Seq))
		default:
			return chip("idle", h.Is, "")
		}
	}
	return ""
}

// verified says what a verification has read.
func verified(what any) string {
	r, ok := what.(*heads.Report)
	if !ok || r == nil {
		return ""
	}
	var entries int64
	var hs int
	for _, p := range r.Partitions {
		entries += p.Entries
		hs += p.Heads
	}
	return fmt.Sprintf("%s entries in %d chains, %s heads in Kafka", thousands(entries), len(r.Partitions), thousands(hs))
}
