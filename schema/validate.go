package schema

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"time"
	"unicode/utf8"
)

// Limits are what a click's rules leave to be set.
type Limits struct {
	MaxValueBytes int           // of the record's value
	MaxURLBytes   int           // of the url
	MaxAge        time.Duration // how old a click may be; 0: any age
	MaxAhead      time.Duration // how far its clock may be ahead of ours before it is wrong rather than fast
}

// DefaultLimits take clicks of any age: after weeks of standing still good clicks must not become dead letters.
func DefaultLimits() Limits {
	return Limits{MaxValueBytes: 1 << 20, MaxURLBytes: 8192, MaxAhead: 24 * time.Hour}
}

// Rule is something that a click must keep beyond its type. A failure names it.
type Rule struct {
	Name string
	Says string                  // what must hold, for people
	ok   func(k *checked) string // what is wrong: the field first, nothing of the value; "" if it is kept
}

// checked is a click on its way through the rules.
type checked struct {
	*Limits
	*Click
	nowMs int64
	plain bool       // the url, by the rule url.text
	addr  netip.Addr // by the rule ip.address
}

// rules are tried in this order; the first that is broken is told. A value's size is looked at before it is decoded.
var rules = []Rule{
	{"user_id.positive", "1 or more", func(k *checked) string {
		if k.UserID < 1 {
			return fmt.Sprintf("user_id: must be 1 or more, is %d", k.UserID)
		}
		return ""
	}},
	{"session_id.uuid", "a uuid in its text form, 8-4-4-4-12 hex digits", func(k *checked) string {
		if !isUUID(k.SessionID) {
			return fmt.Sprintf("session_id: must be a uuid (8-4-4-4-12 hex digits), has %d bytes that are none", len(k.SessionID))
		}
		return ""
	}},
	{"timestamp.epoch", "after 1970", func(k *checked) string {
		if k.TimestampMs < 1 {
			return fmt.Sprintf("timestamp: must be after 1970, is %d ms", k.TimestampMs)
		}
		return ""
	}},
	{"timestamp.age", "at most `validate.max_age` old; by default any age", func(k *checked) string {
		if limit := k.nowMs - k.MaxAge.Milliseconds(); k.MaxAge > 0 && k.TimestampMs < limit {
			return fmt.Sprintf("timestamp: must be at most %v old, is %d ms and the limit was %d ms", k.MaxAge, k.TimestampMs, limit)
		}
		return ""
	}},
	{"timestamp.ahead", "at most `validate.max_ahead` ahead of the worker's clock", func(k *checked) string {
		if limit := k.nowMs + k.MaxAhead.Milliseconds(); k.TimestampMs > limit {
			return fmt.Sprintf("timestamp: must be at most %v ahead, is %d ms and the limit was %d ms", k.MaxAhead, k.TimestampMs, limit)
		}
		return ""
	}},
	{"url.size", "not empty, at most `validate.max_url_bytes`", func(k *checked) string {
		switch {
		case k.URL == "":
			return "url: must not be empty"
		case len(k.URL) > k.MaxURLBytes:
			return fmt.Sprintf("url: must have at most %d bytes, has %d", k.MaxURLBytes, len(k.URL))
		}
		return ""
	}},
	{"url.text", "UTF-8 without control characters", func(k *checked) string {
		if k.plain = isPlainURL(k.URL); k.plain {
			return ""
		}
		if !utf8.ValidString(k.URL) {
			return "url: must be valid UTF-8"
		}
		if i := indexControl(k.URL); i >= 0 {
			return fmt.Sprintf("url: must have no control characters such as NUL, has one at byte %d", i)
		}
		return ""
	}},
	{"url.parseable", "a URL or a reference to one (RFC 3986)", func(k *checked) string {
		if k.plain {
			return ""
		}
		if _, err := url.Parse(k.URL); err != nil {
			return "url: must be parseable (RFC 3986)" // err quotes the url
		}
		return ""
	}},
	{"ip.address", "an IPv4 or IPv6 address, without a zone", func(k *checked) string {
		addr, err := netip.ParseAddr(k.IP)
		if err != nil || addr.Zone() != "" {
			return "ip: must be an IPv4 or IPv6 address"
		}
		k.addr = addr.Unmap()
		return ""
	}},
}

const sizeRule = "value.size"

// Rules are all of them, in the order in which they are tried.
func Rules() []Rule {
	return append([]Rule{{Name: sizeRule, Says: "at most `validate.max_value_bytes`"}}, rules...)
}

// ValidateValue holds a value that is not decoded yet to its rule; nil if it keeps it.
func (l *Limits) ValidateValue(value []byte) *InvalidError {
	if len(value) <= l.MaxValueBytes {
		return nil
	}
	return broken(sizeRule, fmt.Sprintf("value: must have at most %d bytes, has %d", l.MaxValueBytes, len(value)))
}

// Validate holds a decoded click to the rules that its schema can't express, and returns its address, unmapped; the error is nil if it keeps
// them. Its message begins with the field and ends with the rule's name.
func (l *Limits) Validate(c *Click, now time.Time) (netip.Addr, *InvalidError) {
	v := Validator{Limits: *l}
	return v.Validate(c, now)
}

// Validator is Limits with what the rules need on their way, so that a click costs no allocation. It is for one goroutine.
type Validator struct {
	Limits
	k checked
}

// Validate is Limits.Validate.
func (v *Validator) Validate(c *Click, now time.Time) (netip.Addr, *InvalidError) {
	v.k = checked{Limits: &v.Limits, Click: c, nowMs: now.UnixMilli()}
	for i := range rules {
		if wrong := rules[i].ok(&v.k); wrong != "" {
			return netip.Addr{}, broken(rules[i].Name, wrong)
		}
	}
	return v.k.addr, nil
}

func broken(rule, wrong string) *InvalidError {
	return &InvalidError{ClassInvalid, wrong + " (rule " + rule + ")"}
}

// indexControl is where the first byte is that net/url takes for a control character; Postgres can't hold the first of them, NUL.
func indexControl(s string) int {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return i
		}
	}
	return -1
}

// isPlainURL recognises, without an allocation, the urls that nearly all clicks have: http(s)://host[:port] and then unreserved and reserved
// characters and well-formed %XX. False means: look closer. What it lets through, url.Parse does too (fuzzed).
func isPlainURL(s string) bool {
	rest := s
	switch {
	case len(s) > 8 && s[:8] == "https://":
		rest = s[8:]
	case len(s) > 7 && s[:7] == "http://":
		rest = s[7:]
	default:
		return false
	}
	i := 0
	for i < len(rest) && (plain[rest[i]]&hostChar) != 0 {
		i++
	}
	if i == 0 {
		return false
	}
	if i < len(rest) && rest[i] == ':' {
		for i++; i < len(rest) && '0' <= rest[i] && rest[i] <= '9'; i++ {
		}
	}
	if i < len(rest) && rest[i] != '/' && rest[i] != '?' && rest[i] != '#' {
		return false
	}
	for ; i < len(rest); i++ {
		switch k := plain[rest[i]]; {
		case k&restChar != 0:
		case rest[i] == '%' && i+2 < len(rest) && plain[rest[i+1]]&hexDigit != 0 && plain[rest[i+2]]&hexDigit != 0:
			i += 2
		default:
			return false
		}
	}
	return true
}

const (
	hostChar = 1 << iota // in a host's name
	restChar             // in path, query and fragment
	hexDigit
)

var plain = func() (t [math.MaxUint8 + 1]uint8) {
	for c := range len(t) {
		switch {
		case '0' <= c && c <= '9':
			t[c] = hostChar | restChar | hexDigit
		case 'a' <= c && c <= 'f', 'A' <= c && c <= 'F':
			t[c] = hostChar | restChar | hexDigit
		case 'g' <= c && c <= 'z', 'G' <= c && c <= 'Z':
			t[c] = hostChar | restChar
		}
	}
	t['-'], t['.'], t['_'] = hostChar|restChar, hostChar|restChar, restChar
	for _, c := range "~:/?#@!$&'()*+,;=" {
		t[c] = restChar
	}
	return t
}()

// isUUID takes the text form of RFC 9562 in either case, not the braces, urn: and bare digits that parsers also take: rows and events carry the
// text as it came, and one session must not have several.
func isUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	for i := range len(s) {
		if plain[s[i]]&hexDigit == 0 && i != 8 && i != 13 && i != 18 && i != 23 {
			return false
		}
	}
	return true
}
