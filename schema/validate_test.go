package schema

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestValidate(t *testing.T) {
	now := time.UnixMilli(1_769_817_600_000)
	ok := sample().Click
	limits, named := DefaultLimits(), map[string]bool{"timestamp.age": true, "value.size": true} // these two in TestLimits
	defer func() {
		for _, r := range Rules() {
			require.True(t, named[r.Name], "rule %s is broken by no case", r.Name)
			require.NotEmpty(t, r.Says)
		}
		require.Len(t, named, len(Rules()))
	}()
	for _, c := range []struct {
		name   string
		change func(*Click)
		want   string // "" for valid
	}{
		{"as generated", func(*Click) {}, ""},
		{"upper case uuid", func(c *Click) { c.SessionID = strings.ToUpper(c.SessionID) }, ""},
		{"first user", func(c *Click) { c.UserID = 1 }, ""},
		{"user 0", func(c *Click) { c.UserID = 0 }, "user_id: must be 1 or more"},
		{"user -1", func(c *Click) { c.UserID = -1 }, "user_id: must be 1 or more"},
		{"no session", func(c *Click) { c.SessionID = "" }, "session_id: must be a uuid"},
		{"session in braces", func(c *Click) { c.SessionID = "{" + c.SessionID + "}" }, "session_id: must be a uuid"},
		{"session without hyphens", func(c *Click) { c.SessionID = strings.ReplaceAll(c.SessionID, "-", "") }, "session_id: must be a uuid"},
		{"session of 36 hyphens", func(c *Click) { c.SessionID = strings.Repeat("-", 36) }, "session_id: must be a uuid"},
		{"session with a g", func(c *Click) { c.SessionID = "g" + c.SessionID[1:] }, "session_id: must be a uuid"},
		{"session with NUL", func(c *Click) { c.SessionID = "\x00" + c.SessionID[1:] }, "session_id: must be a uuid"},
		{"at the epoch", func(c *Click) { c.TimestampMs = 0 }, "timestamp: must be after 1970"},
		{"before it", func(c *Click) { c.TimestampMs = -1 }, "timestamp: must be after 1970"},
		{"long ago", func(c *Click) { c.TimestampMs = 1 }, ""},
		{"a day ahead", func(c *Click) { c.TimestampMs = now.UnixMilli() + 86_400_000 }, ""},
		{"a day and a ms ahead", func(c *Click) { c.TimestampMs = now.UnixMilli() + 86_400_001 }, "timestamp: must be at most 24h0m0s ahead"},
		{"microseconds", func(c *Click) { c.TimestampMs *= 1000 }, "timestamp: must be at most 24h0m0s ahead"},
		{"a week old", func(c *Click) { c.TimestampMs = now.Add(-7 * 24 * time.Hour).UnixMilli() }, ""},
		{"no address", func(c *Click) { c.IP = "" }, "ip: must be an IPv4 or IPv6 address (rule ip.address)"},
		{"a network", func(c *Click) { c.IP = "203.0.113.0/24" }, "ip: must be"},
		{"a name", func(c *Click) { c.IP = "localhost" }, "ip: must be"},
		{"an address with a zone", func(c *Click) { c.IP = "fe80::1%eth0" }, "ip: must be"},
		{"IPv6", func(c *Click) { c.IP = "2001:db8::1" }, ""},
		{"IPv4 in IPv6", func(c *Click) { c.IP = "::ffff:203.0.113.7" }, ""},
		{"no url", func(c *Click) { c.URL = "" }, "url: must not be empty"},
		{"path only", func(c *Click) { c.URL = "/cart?id=1" }, ""},
		{"8192 bytes", func(c *Click) { c.URL = "https://a/" + strings.Repeat("x", 8182) }, ""},
		{"8193 bytes", func(c *Click) { c.URL = "https://a/" + strings.Repeat("x", 8183) }, "url: must have at most 8192 bytes, has 8193"},
		{"not UTF-8", func(c *Click) { c.URL = "https://a/\xff" }, "url: must be valid UTF-8"},
		{"NUL", func(c *Click) { c.URL = "https://a/\x00" }, "url: must have no control characters such as NUL, has one at byte 10"},
		{"new line", func(c *Click) { c.URL = "https://a/\n" }, "url: must have no control characters"},
		{"international", func(c *Click) { c.URL = "https://bücher.example/größe?q=世界" }, ""},
		{"IPv6 host", func(c *Click) { c.URL = "http://[2001:db8::1]:8080/x" }, ""},
		{"user in it", func(c *Click) { c.URL = "http://user:pass@host/x" }, ""},
		{"bad escape", func(c *Click) { c.URL = "https://a/%zz" }, "url: must be parseable"},
		{"bad port", func(c *Click) { c.URL = "https://a:b/" }, "url: must be parseable"},
		{"no scheme before colon", func(c *Click) { c.URL = "://a" }, "url: must be parseable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			click := ok
			c.change(&click)
			addr, err := limits.Validate(&click, now)
			if c.want == "" {
				require.Nil(t, err)
				require.Equal(t, netip.MustParseAddr(click.IP).Unmap(), addr)
				return
			}
			_, rule, _ := strings.Cut(err.Message, "(rule ")
			named[strings.TrimSuffix(rule, ")")] = true
			require.NotNil(t, err)
			require.Equal(t, ClassInvalid, err.Class)
			require.Contains(t, err.Message, c.want)
			require.NotContains(t, err.Message, "shop.example")
			if click.SessionID != "" {
				require.NotContains(t, err.Message, click.SessionID)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	l := Limits{MaxValueBytes: 10, MaxURLBytes: 20, MaxAge: time.Hour, MaxAhead: time.Minute}
	now := time.UnixMilli(1_769_817_600_000)
	for _, c := range []struct {
		name   string
		change func(*Click)
		want   string
	}{
		{"now", func(*Click) {}, ""},
		{"an hour old", func(c *Click) { c.TimestampMs -= 3_600_000 }, ""},
		{"an hour and a ms", func(c *Click) { c.TimestampMs -= 3_600_001 }, "rule timestamp.age"},
		{"a minute ahead", func(c *Click) { c.TimestampMs += 60_000 }, ""},
		{"a minute and a ms", func(c *Click) { c.TimestampMs += 60_001 }, "rule timestamp.ahead"},
		{"21 bytes", func(c *Click) { c.URL += "x" }, "rule url.size"},
	} {
		t.Run(c.name, func(t *testing.T) {
			click := sample().Click
			click.TimestampMs, click.URL = now.UnixMilli(), "http://a/"+strings.Repeat("x", 11)
			c.change(&click)
			_, err := l.Validate(&click, now)
			require.Equal(t, c.want == "", err == nil, "%v", err)
			if err != nil {
				require.Contains(t, err.Message, c.want)
			}
		})
	}
	require.Nil(t, l.ValidateValue(make([]byte, 10)))
	require.Contains(t, l.ValidateValue(make([]byte, 11)).Message, "value: must have at most 10 bytes, has 11 (rule value.size)")
}

// storable: a click that keeps the rules is one that Postgres can hold (UTF-8 without NUL, an address, a time that timestamptz has); one that
// does not is told by one of the rules, in words that have nothing of it.
func storable(t *testing.T, c *Click) {
	limits := DefaultLimits()
	addr, bad := limits.Validate(c, time.UnixMilli(1_800_000_000_000))
	if bad != nil {
		field, _, _ := strings.Cut(bad.Message, ":")
		_, rule, _ := strings.Cut(bad.Message, "(rule ")
		if !strings.HasPrefix(rule, field+".") || len(bad.Message) > maxMessage || !utf8.ValidString(bad.Message) || strings.Contains(bad.Message, "\x00") {
			t.Fatalf("%q", bad.Message)
		}
		return
	}
	if !addr.IsValid() || addr.Zone() != "" || addr.Is4In6() || c.UserID < 1 || c.TimestampMs < 1 || c.TimestampMs > 1_800_086_400_000 || len(c.URL) > 8192 {
		t.Fatalf("%+v %v", c, addr)
	}
	for _, s := range []string{c.SessionID, c.URL} {
		if s == "" || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			t.Fatalf("%q", s)
		}
	}
}

func FuzzValidate(f *testing.F) {
	c := sample().Click
	f.Add(c.UserID, c.SessionID, c.TimestampMs, c.URL, c.IP)
	f.Add(int64(0), "", int64(0), "", "")
	f.Add(int64(1), strings.ToUpper(c.SessionID), int64(1), "/größe?q=世界", "::ffff:1.2.3.4")
	f.Add(int64(1), c.SessionID, int64(1_800_086_400_001), "http://[fe80::1%25en0]/", "fe80::1%eth0")
	f.Add(int64(1), "\x00"+c.SessionID[1:], int64(1), "https://a/\x00", "1.2.3")
	addCorpus(f)
	f.Fuzz(func(t *testing.T, user int64, session string, at int64, url, ip string) {
		storable(t, &Click{user, session, at, url, ip})
	})
}

func FuzzIsPlainURL(f *testing.F) {
	for _, s := range []string{"https://shop.example/a?b=c#d", "http://a:80", "http://a:/%41", "https://a.b-c:99999/", "http://a?%", "http://a/%4", "https://-/", "http://.:0#"} {
		f.Add(s)
	}
	addCorpus(f)
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := url.Parse(s); isPlainURL(s) && (err != nil || indexControl(s) >= 0) {
			t.Errorf("%q taken, url.Parse says %v", s, err)
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	c := sample().Click
	now := time.UnixMilli(c.TimestampMs)
	limits := DefaultLimits()
	for name, u := range map[string]string{"plain": c.URL, "international": "https://bücher.example/größe?q=世界"} {
		b.Run(name, func(b *testing.B) {
			c.URL = u
			b.ReportAllocs()
			for b.Loop() {
				if _, err := limits.Validate(&c, now); err != nil {
					b.Fatal()
				}
			}
		})
	}
}
