package console

import (
	"encoding/hex"
	"net/netip"
	"regexp"
	"strings"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/console/guard"
	"github.com/exactly-pipeline/exactly/outbox"
)

// eyes are what somebody may see. What they may not is gone before a template gets it.
type eyes struct{ addresses bool }

func eyesOf(p guard.Person) eyes { return eyes{p.MaySeeAddresses()} }

const masked = "masked"

func (e eyes) ip(s string) string {
	if e.addresses || s == "" {
		return s
	}
	return masked
}

// word finds what may be an address in a text. Whether it is one, netip says.
var word = regexp.MustCompile(`[0-9A-Fa-f:.]*[:.][0-9A-Fa-f:.]*[0-9A-Fa-f:]`)

// text is what may have an address in it.
func (e eyes) text(s string) string {
	if e.addresses {
		return s
	}
	return word.ReplaceAllStringFunc(s, func(w string) string {
		address := strings.TrimRight(w, ":.")
		for _, t := range []string{w, address} {
			_, err := netip.ParseAddr(t)
			_, perr := netip.ParseAddrPort(t)
			if err == nil || perr == nil {
				return masked + w[len(t):]
			}
		}
		return w
	})
}

const mostBytes = 4 << 10 // shown of one value

// raw is bytes for people; empty where they may not be seen: they hold addresses.
func (e eyes) raw(b []byte) string {
	if !e.addresses || len(b) == 0 {
		return ""
	}
	if len(b) > mostBytes {
		return hex.Dump(b[:mostBytes]) + "…"
	}
	return hex.Dump(b)
}

// ours are headers that this program writes, or whose form is known: nobody's address is in them.
func ours(key string) bool {
	return strings.HasPrefix(key, "exactly-") || key == "traceparent" || strings.HasPrefix(key, "__connect.errors.") && key != "__connect.errors.exception.message"
}

type shownHeader struct{ Key, Value string }

func (e eyes) headers(hs []outbox.Header) (out []shownHeader) {
	for _, h := range hs {
		switch {
		case h.Value == nil:
			out = append(out, shownHeader{h.Key, "null"})
		case !e.addresses && !ours(h.Key):
			out = append(out, shownHeader{h.Key, masked})
		default:
			out = append(out, shownHeader{h.Key, strings.ToValidUTF8(string(h.Value), "\ufffd")})
		}
	}
	return out
}

// record takes out of a record what may not be seen.
func (e eyes) record(r *audit.Record) {
	if e.addresses {
		return
	}
	if r.Click != nil {
		r.Click.IP = masked
	}
	for i := range r.Rows {
		r.Rows[i].IP = masked
	}
	for i := range r.Dead {
		r.Dead[i].Message = e.text(r.Dead[i].Message)
	}
	for _, ms := range [][]audit.Message{r.Outbox, r.Events} {
		for i := range ms {
			if ms[i].Enriched != nil {
				ms[i].Enriched.IP = masked
			}
		}
	}
}
