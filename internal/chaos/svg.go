package chaos

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The timeline's measures, in pixels.
const (
	left, right, top   = 78, 12, 26
	wide, high         = 1100, 220
	laneHigh, laneBar  = 24, 13
	smooth             = 5 // seconds averaged
	capturedIs, pubIs  = "#2563a8", "#d9730d"
	sentIs, inkIs, dim = "#9a9a94", "#1c1c1a", "#6b6b66"
)

// colours of faults, by what they struck.
var colours = []struct{ what, colour string }{
	{"worker killed", "#b42318"}, {"worker frozen", "#7a3e9d"}, {"worker otherwise", "#c7851a"}, {"Kafka", "#0f766e"}, {"Postgres", "#2f5d8a"},
	{"network", "#5b6b1f"}, {"membership", "#8c564b"},
}

func colour(f *Fault) int {
	k := string(f.Kind)
	switch {
	case f.Kind == KillAt || f.Kind == KillAny:
		return 0
	case f.Kind == Zombie:
		return 1
	case f.Kind == Storm || f.Kind == Grow:
		return 6
	case f.Lane == "network":
		return 5
	case strings.HasPrefix(k, "broker") || strings.HasPrefix(k, "schema"):
		return 3
	case strings.HasPrefix(k, "Postgres") || strings.Contains(k, "Postgres"):
		return 4
	default:
		return 2
	}
}

// timeline draws clicks a second above, and below them each lane's faults, from the strike to the recovery.
func (r *Report) timeline() string {
	var lanes []string
	row := map[string]int{}
	for _, f := range r.Faults {
		if _, there := row[f.Lane]; !there {
			row[f.Lane] = len(lanes)
			lanes = append(lanes, f.Lane)
		}
	}
	end := math.Max(seconds(r.TookMs), 1)
	sent, captured, published := rates(r.Samples, int(end))
	most := 1.0
	for _, series := range [][]float64{sent, captured, published} {
		for _, v := range series {
			most = math.Max(most, v)
		}
	}
	step := nice(most / 4)
	most = step * math.Ceil(most/step)
	x := func(s float64) float64 { return left + s/end*(wide-left-right) }
	y := func(v float64) float64 { return top + high - v/most*high }
	below := top + high + 34
	height := below + len(lanes)*laneHigh + 34
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="Clicks a second, and the faults" font-family="inherit" font-size="12">`, wide, height)
	for v := 0.0; v <= most; v += step {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#e4e4de"/><text x="%d" y="%.1f" text-anchor="end" fill="%s">%s</text>`,
			left, wide-right, y(v), y(v), left-8, y(v)+4, dim, number(int64(v)))
	}
	fmt.Fprintf(&b, `<text x="0" y="12" fill="%s">clicks a second</text>`, dim)
	tick := nice(end/10/60) * 60 // whole minutes
	if end < 120 {
		tick = nice(end / 10)
	}
	for s := 0.0; s <= end; s += tick {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#efefe9"/><text x="%.1f" y="%d" text-anchor="middle" fill="%s">%s</text>`,
			x(s), x(s), top, below+len(lanes)*laneHigh, x(s), top+high+18, dim, clock(s))
	}
	for _, series := range []struct {
		v             []float64
		colour, style string
	}{{sent, sentIs, "2 3"}, {captured, capturedIs, ""}, {published, pubIs, ""}} {
		var points strings.Builder
		for s, v := range series.v {
			if !math.IsNaN(v) {
				fmt.Fprintf(&points, "%.1f,%.1f ", x(float64(s)), y(v))
			}
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5" stroke-dasharray="%s"/>`, points.String(), series.colour, series.style)
	}
	for i, l := range []struct{ name, colour string }{{"sent", sentIs}, {"captured in Postgres", capturedIs}, {"published to Kafka", pubIs}} {
		fmt.Fprintf(&b, `<rect x="%d" y="4" width="14" height="4" fill="%s"/><text x="%d" y="12" fill="%s">%s</text>`, 160+i*170, l.colour, 180+i*170, inkIs, l.name)
	}
	for i, l := range lanes {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" fill="%s">%s</text>`, left-8, below+i*laneHigh+laneBar-1, inkIs, html.EscapeString(l))
	}
	used := map[int]bool{}
	for _, f := range r.Faults {
		if f.Confirmed == "" {
			continue
		}
		used[colour(f)] = true
		width := math.Max(x(seconds(f.AtMs+max(f.TookMs, f.HealedMs-f.AtMs)))-x(seconds(f.AtMs)), 2)
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" rx="1.5" fill="%s" fill-opacity="0.8"><title>%s</title></rect>`,
			x(seconds(f.AtMs)), below+row[f.Lane]*laneHigh, width, laneBar, colours[colour(f)].colour, html.EscapeString(fmt.Sprintf("%d  %s: %s", f.N, f.plan(), f.outcome())))
	}
	at := left
	for i, c := range colours {
		if used[i] {
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="12" height="12" rx="1.5" fill="%s" fill-opacity="0.8"/><text x="%d" y="%d" fill="%s">%s</text>`,
				at, height-16, c.colour, at+18, height-6, inkIs, c.what)
			at += 34 + 7*len(c.what)
		}
	}
	b.WriteString("</svg>")
	return b.String()
}

// rates are clicks a second, averaged over some; a second in which nobody could be asked has what was found after it, spread evenly.
func rates(samples []Sample, n int) (sent, captured, published []float64) {
	at := func(get func(Sample) int64) []float64 {
		total := make([]float64, n+1) // by the end of each second, interpolated
		i := 0
		for s := range total {
			for i+1 < len(samples) && samples[i+1].S <= s {
				i++
			}
			if len(samples) == 0 {
				continue
			}
			v := float64(get(samples[i]))
			if i+1 < len(samples) && samples[i].S < s {
				next := samples[i+1]
				v += (float64(get(next)) - v) * float64(s-samples[i].S) / float64(next.S-samples[i].S)
			}
			total[s] = v
		}
		out := make([]float64, n+1)
		for s := range out {
			from := max(0, s-smooth)
			if s > from {
				out[s] = (total[s] - total[from]) / float64(s-from)
			}
		}
		return out
	}
	return at(func(s Sample) int64 { return s.Sent }), at(func(s Sample) int64 { return s.Captured }), at(func(s Sample) int64 { return s.Published })
}

// nice is the next of 1, 2, 5, 10, …
func nice(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(math.Max(v, 1))))
	for _, m := range []float64{1, 2, 5, 10} {
		if m*p >= v {
			return m * p
		}
	}
	return 10 * p
}

func clock(s float64) string { return fmt.Sprintf("%d:%02d", int(s)/60, int(s)%60) }
