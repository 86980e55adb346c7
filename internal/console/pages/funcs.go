package pages

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/internal/console/now"
)

var funcs = template.FuncMap{
	"n": number, "off": offset, "rate": rate, "dur": duration, "late": late, "half": func(n int64) int64 { return n / 2 },
	"clock": func(t time.Time) string { return t.UTC().Format("15:04:05") },
	"time":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
	"stamp": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"stale": func(d time.Duration) bool { return d > 5*time.Second },
	"strip": strip, "spark": spark, "ids": ids, "paused": paused, "worst": worst, "owner": owner,
	"words": func(s any) string { return strings.ReplaceAll(fmt.Sprint(s), "_", " ") },
	"short": func(s string) string { return s[:min(len(s), 12)] },
	"is":    is, "tone": tone, "line": line, "hex": hexShort, "head": head, "verified": verified, "bars": bars, "state": state, "verdict": verdict,
	"add": func(a, b int64) int64 { return a + b }, "at": func(t *time.Time) time.Time { return *t },
	"px": px, "pct": func(f float64) string { return strconv.Itoa(int(100 * f)) },
}

func number(v any) string {
	switch v := v.(type) {
	case int:
		return thousands(v)
	case int16:
		return thousands(v)
	case int32:
		return thousands(v)
	case int64:
		return thousands(v)
	}
	return fmt.Sprint(v)
}

// thousands groups digits by narrow spaces.
func thousands[N int | int16 | int32 | int64](v N) string {
	s := strconv.FormatInt(int64(v), 10)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "−", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return sign + s
}

// offset is one that there may be none of.
func offset(n int64) string {
	if n < 0 {
		return "none"
	}
	return thousands(n)
}

func rate(f float64) string {
	if f > 0 && f < 10 {
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return thousands(int64(f + 0.5))
}

func duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return strconv.Itoa(int(d.Milliseconds())) + " ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + " days"
}

// late says how long the oldest click has waited.
func late(l now.Late, done string) string {
	switch {
	case !l.Known:
		return "measuring"
	case l.For == 0:
		return "everything is " + done
	case l.AtLeast:
		return "the oldest waits for more than " + duration(l.For)
	}
	return "the oldest waits for about " + duration(l.For)
}

func ids(ps []int32) string {
	if len(ps) == 1 {
		return "partition " + strconv.Itoa(int(ps[0]))
	}
	var out []string
	for i := 0; i < len(ps); {
		j := i
		for j+1 < len(ps) && ps[j+1] == ps[j]+1 {
			j++
		}
		if j-i >= 2 {
			out = append(out, fmt.Sprintf("%d to %d", ps[i], ps[j]))
		} else {
			for k := i; k <= j; k++ {
				out = append(out, strconv.Itoa(int(ps[k])))
			}
		}
		i = j + 1
	}
	return "partitions " + strings.Join(out, ", ")
}

func paused(ps []now.Paused) string {
	n := 0
	for _, p := range ps {
		n += len(p.Partitions)
	}
	if n == 1 {
		return "One partition does not go on."
	}
	return fmt.Sprintf("%d partitions do not go on.", n)
}

func worst(ps []now.Paused) string {
	for _, p := range ps {
		if p.State == "held" || p.State == "stopped" {
			return "bad"
		}
	}
	return "warn"
}

// owner is who has the partition, and who is to have it.
func owner(s now.Strip) string {
	switch {
	case s.Owner == "" && s.Assigned == "":
		return "nobody"
	case s.Owner == "" || s.Owner == s.Assigned:
		return s.Assigned
	case s.Assigned == "":
		return s.Owner + " (gone)"
	}
	return s.Owner + " → " + s.Assigned
}

// is is the colour of a comparison.
func is(s string) string {
	return map[string]string{"equal": "good", "different": "bad", "unknown": "idle"}[s]
}

// tone is the colour of what has become of a record.
func tone(state string) string {
	switch {
	case strings.HasPrefix(state, "once in Postgres and once in Kafka"):
		return "good"
	case strings.HasPrefix(state, "once") || strings.HasPrefix(state, "waiting"):
		return "busy"
	case strings.HasPrefix(state, "no such") || strings.HasPrefix(state, "given up"):
		return "warn"
	}
	return "bad"
}

// state is the colour of where a dead letter stands.
func state(s string) string {
	return map[string]string{"open": "warn", "requested": "busy", "replayed": "good"}[s]
}

// verdict is an audit's without the word before it, which the page says already.
func verdict(s string) string {
	for _, word := range []string{"NOT clean: ", "clean: ", "clean, "} {
		if rest, ok := strings.CutPrefix(s, word); ok {
			return strings.ToUpper(rest[:1]) + strings.ReplaceAll(rest[1:], "_", " ") + "."
		}
	}
	return s
}
