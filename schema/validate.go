package schema

import (
	"fmt"
	"math"
	"net/url"
	"time"
	"unicode/utf8"
)

// MaxURLBytes is the longest url that is taken.
const MaxURLBytes = 8192

// maxAhead is how far a click's clock may be ahead of ours before it is wrong rather than fast.
const maxAhead = 24 * time.Hour

// Validate holds a decoded click to the rules that its schema can't express; nil if it keeps them. The ip is not looked at: an address that
// can't be parsed is whoever's who looks it up. The message begins with the field and says the rule.
func Validate(c *Click, now time.Time) *InvalidError {
	if c.UserID < 1 {
		return invalid("user_id: must be 1 or more, is %d", c.UserID)
	}
	if !isUUID(c.SessionID) {
		return invalid("session_id: must be a uuid (8-4-4-4-12 hex digits), has %d bytes that are none", len(c.SessionID))
	}
	if c.TimestampMs < 1 {
		return invalid("timestamp: must be after 1970, is %d ms", c.TimestampMs)
	}
	if limit := now.Add(maxAhead).UnixMilli(); c.TimestampMs > limit {
		return invalid("timestamp: must be at most %v ahead, is %d ms and the limit was %d ms", maxAhead, c.TimestampMs, limit)
	}
	return validateURL(c.URL)
}

func validateURL(s string) *InvalidError {
	if s == "" {
		return invalid("url: must not be empty")
	}
	if len(s) > MaxURLBytes {
		return invalid("url: must have at most %d bytes, has %d", MaxURLBytes, len(s))
	}
	if isPlainURL(s) {
		return nil
	}
	if !utf8.ValidString(s) {
		return invalid("url: must be valid UTF-8")
	}
	if i := indexControl(s); i >= 0 {
		return invalid("url: must have no control characters such as NUL, has one at byte %d", i)
	}
	if _, err := url.Parse(s); err != nil {
		return invalid("url: must be parseable (RFC 3986)") // err quotes the url
	}
	return nil
}

func invalid(format string, a ...any) *InvalidError {
	return &InvalidError{ClassInvalid, fmt.Sprintf(format, a...)}
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
