package schema

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestValidate(t *testing.T) {
	now := time.UnixMilli(1_769_817_600_000)
	ok := sample().Click
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
			err := Validate(&click, now)
			if c.want == "" {
				require.Nil(t, err)
				return
			}
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

func FuzzIsPlainURL(f *testing.F) {
	for _, s := range []string{"https://shop.example/a?b=c#d", "http://a:80", "http://a:/%41", "https://a.b-c:99999/", "http://a?%", "http://a/%4", "https://-/", "http://.:0#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := url.Parse(s); isPlainURL(s) && (err != nil || indexControl(s) >= 0) {
			t.Errorf("%q taken, url.Parse says %v", s, err)
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	c := sample().Click
	now := time.UnixMilli(c.TimestampMs)
	for name, u := range map[string]string{"plain": c.URL, "international": "https://bücher.example/größe?q=世界"} {
		b.Run(name, func(b *testing.B) {
			c.URL = u
			b.ReportAllocs()
			for b.Loop() {
				if Validate(&c, now) != nil {
					b.Fatal()
				}
			}
		})
	}
}
