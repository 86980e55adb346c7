package behaviour

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/schema"
)

// Of a click nothing but its coordinates is in any log, at level debug, the Kafka client's own words included: whether it is good, can't be read, breaks
// each of the rules, is refused by Postgres, or is being captured when the worker is killed. Nor is it in what metrics and health answer.
func TestNothingPersonalIsLogged(t *testing.T) {
	const url, v4, v6, session = "https://private.example/letters/7f3a9c", "203.0.113.77", "2001:db8:7f3a:9c::77", "7f3a9c00-aaaa-4bbb-8ccc-0123456789ab"
	b := setup(t, "EXACTLY_KAFKA_DEBUG=cgrp,topic,fetch,eos,msg", "EXACTLY_LOG_FORMAT=json", "EXACTLY_LOG_BURST=0", "EXACTLY_DEAD_LETTERS_MAX_SHARE=0")
	// Postgres refuses this user's rows; what it says of a row quotes it.
	_, err := b.db.Exec(b.ctx, `ALTER TABLE enriched_clicks ADD CONSTRAINT not_this_one CHECK (user_id <> 4711)`)
	require.NoError(t, err)
	encode := avro(b.clickID())
	good := schema.Click{UserID: 7, SessionID: session, TimestampMs: 1_769_817_600_000, URL: url, IP: v4}
	with := func(change func(*schema.Click)) []byte {
		c := good
		change(&c)
		return encode(&c)
	}
	values := [][]byte{
		encode(&good), with(func(c *schema.Click) { c.IP = v6 }),
		with(func(c *schema.Click) { c.IP = v4 + ".1" }), with(func(c *schema.Click) { c.IP = v6 + "%eth0" }), with(func(c *schema.Click) { c.URL = url + "\x00" }),
		with(func(c *schema.Click) { c.URL = url + "%zz" }), with(func(c *schema.Click) { c.URL = url + strings.Repeat("/", 9000) }),
		with(func(c *schema.Click) { c.SessionID = session + "x" }), with(func(c *schema.Click) { c.UserID = 0 }), with(func(c *schema.Click) { c.TimestampMs = -1 }),
		with(func(c *schema.Click) { c.UserID = 4711 }),
		[]byte(url + " " + v4), append(encode(&good), url...), encode(&good)[:30], append([]byte{0, 0, 0, 0x27, 0x0f}, (url + v4)...),
		fmt.Appendf(nil, `{"user_id":7,"session_id":%q,"timestamp":1,"url":%q,"ip":%q}`, session, url, v4),
	}
	var rs []*kgo.Record
	for i := range 1200 {
		rs = append(rs, &kgo.Record{Partition: int32(i % partitions), Key: []byte("7"), Value: values[i/partitions%len(values)],
			Headers: []kgo.RecordHeader{{Key: "referrer", Value: []byte(url)}}})
	}
	b.produce(rs...)
	b.start("a", failpoint(fp.CaptureCopied+"=kill@2")).killed(fp.CaptureCopied)
	w := b.watched("b")
	b.until("all of it is stored and published", func() bool { return b.stored() == b.sent && b.published() == b.sent })
	require.Greater(t, b.scalar(`SELECT count(*) FROM dead_letters`), int64(600))
	require.Positive(t, b.scalar(`SELECT count(*) FROM dead_letters WHERE error_class = 'refused'`), "Postgres refused nothing")
	for _, path := range []string{"/metrics", "/readyz", "/livez"} {
		_, text := w.ask(path)
		personal(t, path, text, url, v4, v6, session)
	}
	w.stop()
	for _, w := range b.workers {
		require.Contains(t, w.log.String(), `"worker":"`+w.id+`"`)
		personal(t, "the log of worker "+w.id, w.log.String(), url, v4, v6, session)
	}
	for _, args := range [][]string{{"offsets", "show"}, {"audit"}, {"txn", "list"}, {"dlq", "list"}} {
		out, _ := b.try(args...)
		personal(t, strings.Join(args, " "), out, url, v4, v6, session)
	}
}

// personal requires that a text has none of these, nor their beginnings.
func personal(t *testing.T, what, text string, of ...string) {
	t.Helper()
	require.NotEmpty(t, text, what)
	for _, v := range of {
		if at := strings.Index(text, v[:min(len(v), 20)]); at >= 0 {
			t.Fatalf("%s tells %q: %s", what, v, text[max(0, at-200):min(len(text), at+200)])
		}
	}
}
