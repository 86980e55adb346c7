package clicks

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"time"
)

// accessLine is what a line of a web server's access log says of one request.
type accessLine struct {
	client netip.Addr // first public address of X-Forwarded-For if the line has it, else the peer
	at     time.Time
	target string // request target as the client sent it, made fit for a URL
	agent  string // user agent, unescaped; empty if the log has none
}

// accessTime is how Apache and nginx write a time; the brackets are cut off before.
const accessTime = "02/Jan/2006:15:04:05 -0700"

// What can be wrong with a line. The messages never contain the line: it holds an address.
var (
	errNoClient  = errors.New("the first field is not an address")
	errNoTime    = errors.New("no time like [31/Jan/2026:23:59:59 +0000]")
	errNoRequest = errors.New(`no request like "GET / HTTP/1.1"`)
	errNoStatus  = errors.New("no status code after the request")
	errTarget    = errors.New("the request is not for a page")
)

// parseAccessLine reads a line in Common or Combined Log Format, without its line end:
//
//	client ident user [time] "request" status bytes
//	client ident user [time] "request" status bytes "referer" "user agent"
//	client ident user [time] "request" status bytes "referer" "user agent" "X-Forwarded-For"
//
// What follows is ignored: servers are often configured to log more. Sources: Apache's mod_log_config, nginx's
// ngx_http_log_module (whose default "main" format has the third form).
func parseAccessLine(line []byte) (a accessLine, err error) {
	host, rest, _ := bytes.Cut(line, []byte(" "))
	if a.client, err = netip.ParseAddr(string(host)); err != nil {
		return a, errNoClient
	}
	a.client = a.client.Unmap().WithZone("")
	if a.at, rest, err = cutTime(rest); err != nil {
		return a, err
	}
	request, rest, ok := cutQuoted(rest)
	if !ok {
		return a, errNoRequest
	}
	if a.target, err = requestTarget(request); err != nil {
		return a, err
	}
	status, rest := cutField(rest)
	if len(status) != 3 || status[0] < '1' || status[0] > '9' || !isDigits(status) {
		return a, errNoStatus
	}
	_, rest = cutField(rest) // bytes
	if _, rest, ok = cutQuoted(rest); !ok {
		return a, nil // Common
	}
	agent, rest, ok := cutQuoted(rest)
	if !ok {
		return a, nil
	}
	if agent != "-" {
		a.agent = agent
	}
	if forwarded, _, ok := cutQuoted(rest); ok {
		a.client = forwardedClient(forwarded, a.client)
	}
	return a, nil
}

// cutTime finds the bracketed time by what is in it, not by counting fields: a user name may contain spaces and brackets.
func cutTime(b []byte) (time.Time, []byte, error) {
	for {
		i := bytes.IndexByte(b, '[')
		if i < 0 || len(b) < i+len(accessTime)+2 {
			return time.Time{}, nil, errNoTime
		}
		b = b[i+1:]
		if b[len(accessTime)] != ']' {
			continue
		}
		if t, err := time.Parse(accessTime, string(b[:len(accessTime)])); err == nil {
			return t, b[len(accessTime)+1:], nil
		}
	}
}

// cutField cuts the next field that ends at a space.
func cutField(b []byte) (field, rest []byte) {
	field, rest, _ = bytes.Cut(bytes.TrimLeft(b, " "), []byte(" "))
	return field, rest
}

// cutQuoted cuts the next field if it is quoted, and unescapes it. A quote inside that was not escaped is taken as part of the field
// unless a space or the line's end follows: some writers do not escape.
func cutQuoted(b []byte) (field string, rest []byte, ok bool) {
	b = bytes.TrimLeft(b, " ")
	if len(b) == 0 || b[0] != '"' {
		return "", nil, false
	}
	b = b[1:]
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '\\':
			i++
		case b[i] == '"' && (i+1 == len(b) || b[i+1] == ' '):
			return unescape(b[:i]), b[i+1:], true
		}
	}
	return "", nil, false
}

// unescape undoes what Apache (\" \\ \n \r \t \xHH) and nginx (\xHH) do to bytes that would break a line. Anything else after a
// backslash is left as it is.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	var s strings.Builder
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' || i+1 == len(b) {
			s.WriteByte(b[i])
			continue
		}
		if i+3 < len(b) && b[i+1] == 'x' {
			if h, l := unhex(b[i+2]), unhex(b[i+3]); h >= 0 && l >= 0 {
				s.WriteByte(byte(h<<4 | l))
				i += 3
				continue
			}
		}
		if k := strings.IndexByte(`"\nrt`, b[i+1]); k >= 0 {
			s.WriteByte("\"\\\n\r\t"[k])
			i++
			continue
		}
		s.WriteByte('\\')
	}
	return s.String()
}

// requestTarget takes the target out of a request line. "-" and empty are connections that sent none; `*` and CONNECT's host:port
// name no page.
func requestTarget(request string) (string, error) {
	method, rest, ok := strings.Cut(request, " ")
	if !ok || method == "" || strings.IndexFunc(method, func(r rune) bool { return (r < 'A' || r > 'Z') && r != '-' && r != '_' }) >= 0 {
		return "", errNoRequest
	}
	if i := strings.LastIndex(rest, " HTTP/"); i >= 0 { // the last: a bad client does not escape spaces in a target
		rest = rest[:i]
	}
	if !strings.HasPrefix(rest, "/") && !isHTTP(rest) {
		return "", errTarget
	}
	return percentEncode(rest), nil
}

func isHTTP(s string) bool {
	return len(s) > len("https://") && (strings.EqualFold(s[:7], "http://") || strings.EqualFold(s[:8], "https://"))
}

// percentEncode encodes the bytes that RFC 3986 has in no URL, a percent sign that begins no escape among them, and leaves what is
// encoded already: the result is ASCII, and so valid UTF-8, which Avro demands of a string.
func percentEncode(s string) string {
	var b []byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		fits := c > ' ' && c < 0x7f && strings.IndexByte("\"<>\\^`{|}", c) < 0
		if c == '%' {
			fits = i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0
		}
		if fits {
			b = append(b, c)
		} else {
			b = append(b, '%', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
		}
	}
	return string(b)
}

// forwardedClient is the first public address in an X-Forwarded-For header, peer if there is none. Clients can write what they like
// in that header: it is worth as much as the proxy that is trusted to set it.
func forwardedClient(header string, peer netip.Addr) netip.Addr {
	for entry := range strings.SplitSeq(header, ",") {
		entry = strings.TrimSpace(entry)
		a, err := netip.ParseAddr(strings.Trim(entry, "[]"))
		if err != nil {
			ap, err := netip.ParseAddrPort(entry) // some proxies add the port
			if err != nil {
				continue
			}
			a = ap.Addr()
		}
		if a = a.Unmap().WithZone(""); isPublic(a) {
			return a
		}
	}
	return peer
}

func isDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// unhex is a hexadecimal digit's value, negative if c is none.
func unhex(c byte) int {
	i := strings.IndexByte("0123456789abcdefABCDEF", c)
	if i > 15 {
		i -= 6
	}
	return i
}
