package clicks

import (
	"bytes"
	"flag"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

var rewriteAccessLog = flag.Bool("rewrite-accesslog", false, "renew the answers in testdata/accesslog.txt")

func TestParseAccessLine(t *testing.T) {
	const file = "testdata/accesslog.txt"
	golden, err := os.ReadFile(file)
	require.NoError(t, err)
	var out strings.Builder
	for line := range strings.SplitSeq(strings.TrimSuffix(string(golden), "\n"), "\n") {
		if strings.HasPrefix(line, "=> ") {
			continue
		}
		fmt.Fprintln(&out, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		a, err := parseAccessLine([]byte(line))
		if err != nil {
			fmt.Fprintf(&out, "=> error: %v\n", err)
			continue
		}
		fmt.Fprintf(&out, "=> %s %s %s %q\n", a.client, a.at.UTC().Format(time.RFC3339), a.target, a.agent)
	}
	if *rewriteAccessLog {
		require.NoError(t, os.WriteFile(file, []byte(out.String()), 0o644))
	}
	require.Equal(t, string(golden), out.String())
}

func FuzzParseAccessLine(f *testing.F) {
	golden, err := os.ReadFile("testdata/accesslog.txt")
	require.NoError(f, err)
	for line := range bytes.SplitSeq(golden, []byte("\n")) {
		f.Add(line)
	}
	f.Add([]byte("8.8.8.8 - - [31/Jan/2026:23:59:59 +0000] \"GET /%\x10\x11 HTTP/1.1\" 200 1")) // bytes that differ from digits in one bit
	f.Fuzz(func(t *testing.T, line []byte) {
		before := bytes.Clone(line)
		a, err := parseAccessLine(line)
		require.Equal(t, before, line, "the line is only read")
		if err != nil {
			require.NotContains(t, err.Error(), "%!")
			return
		}
		require.True(t, a.client.IsValid() && a.client.Zone() == "" && !a.client.Is4In6())
		require.True(t, strings.HasPrefix(a.target, "/") || isHTTP(a.target), "%q", a.target)
		for _, r := range a.target {
			require.True(t, r > ' ' && r < utf8.RuneSelf && r != '"', "%q", a.target)
		}
		require.LessOrEqual(t, len(a.target), 3*len(line))
		if !isHTTP(a.target) { // an absolute one can name an impossible host: that is the client's to answer for
			_, err = url.Parse("http://localhost" + a.target)
			require.NoError(t, err)
		}
		v := visitor{a.client.String(), a.agent}
		require.True(t, v.userID() >= 1 && v.userID() <= 1<<31)
	})
}

func TestSampleIsRead(t *testing.T) {
	var vs visitors
	forwarded, v6, bad := 0, 0, 0
	for line := range bytes.SplitSeq(bytes.TrimSuffix(SampleAccessLog, []byte("\n")), []byte("\n")) {
		a, err := parseAccessLine(line)
		if err != nil {
			bad++
			continue
		}
		if isPublic(a.client) {
			forwarded++
		}
		if a.client.Is6() {
			v6++
		}
		_, err = url.Parse("http://localhost" + a.target)
		require.NoError(t, err)
		require.NoError(t, uuid.Validate(vs.sessionID(visitor{a.client.String(), a.agent}, a.at.UnixMilli())))
	}
	require.Equal(t, 3, bad, "a TLS handshake, a method that is none, a connection without a request")
	require.Greater(t, forwarded, 320)
	require.Greater(t, v6, 60)
}

func TestSessions(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	a, b := visitor{"8.8.8.8", "x"}, visitor{"8.8.8.8", "y"}
	ids := func() (all []string) {
		var vs visitors
		for _, r := range []struct {
			v       visitor
			minutes float64
		}{{a, 0}, {a, 29}, {a, 58}, {a, 57}, {b, 58}, {a, 89}, {a, -31}} {
			all = append(all, vs.sessionID(r.v, at.Add(time.Duration(r.minutes*float64(time.Minute))).UnixMilli()))
		}
		return all
	}
	got := ids()
	require.Equal(t, got, ids(), "the same requests, the same ids")
	require.Equal(t, got[0], got[1])
	require.Equal(t, got[0], got[2], "half an hour after the last request, not the first")
	require.Equal(t, got[0], got[3], "a little out of order")
	require.NotEqual(t, got[0], got[4], "another agent is another visitor")
	require.NotEqual(t, got[0], got[5], "31 minutes of silence")
	require.NotEqual(t, got[5], got[6], "long before")
	require.EqualValues(t, 5, uuid.MustParse(got[0]).Version())
	require.NotEqual(t, a.userID(), b.userID())
	require.Equal(t, a.userID(), visitor{"8.8.8.8", "x"}.userID())
	require.NotEqual(t, visitor{"1", "23"}.userID(), visitor{"12", "3"}.userID())
}

func TestVisitorsAreBounded(t *testing.T) {
	vs := visitors{max: 100}
	minute := time.Minute.Milliseconds()
	for i := range int64(10_000) {
		vs.sessionID(visitor{fmt.Sprint(i), ""}, i*minute)
		require.LessOrEqual(t, len(vs.seen), 100)
	}
	for i := range int64(10_000) {
		vs.sessionID(visitor{fmt.Sprint(i), ""}, 20_000*minute)
		require.LessOrEqual(t, len(vs.seen), 100)
	}
}
