package behaviour

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/exactly-pipeline/exactly/schema"
)

// produce writes records to the input, each to the partition it names.
func (b *bundle) produce(records ...*kgo.Record) {
	b.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.cfg.Kafka.Brokers, ",")...), kgo.DefaultProduceTopic(b.cfg.Topics.Input),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(16<<20))
	require.NoError(b.t, err)
	defer cl.Close()
	require.NoError(b.t, cl.ProduceSync(b.ctx, records...).FirstErr())
	b.sent += int64(len(records))
}

// produceLarge writes records in batches that a broker takes by default, uncompressed.
func (b *bundle) produceLarge(records ...*kgo.Record) {
	b.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.cfg.Kafka.Brokers, ",")...), kgo.DefaultProduceTopic(b.cfg.Topics.Input),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(1<<20))
	require.NoError(b.t, err)
	defer cl.Close()
	for len(records) > 0 { // a few at a time, or the client would have it all in memory once more
		n, bytes := 0, 0
		for ; n < len(records) && bytes < 8<<20; n++ {
			bytes += len(records[n].Value)
		}
		require.NoError(b.t, cl.ProduceSync(b.ctx, records[:n]...).FirstErr())
		b.sent += int64(n)
		records = records[n:]
	}
}

// click is the i-th click of a test: all of it can be told from i.
func click(i int) schema.Click {
	return schema.Click{
		UserID: int64(i) + 1, SessionID: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i)).String(), TimestampMs: 1_769_817_600_000 + int64(i),
		URL: fmt.Sprintf("https://shop.example/item/%d", i), IP: fmt.Sprintf("203.0.113.%d", i%256),
	}
}

// document is a click as JSON, with more fields behind its own.
func document(c *schema.Click, more string) []byte {
	return fmt.Appendf(nil, `{"user_id":%d,"session_id":%q,"timestamp":%d,"url":%q,"ip":%q%s}`, c.UserID, c.SessionID, c.TimestampMs, c.URL, c.IP, more)
}

// record is a click as a record for a partition, in the bytes that encode makes of it.
func record(partition int32, i int, encode func(*schema.Click) []byte) *kgo.Record {
	c := click(i)
	return &kgo.Record{Partition: partition, Key: fmt.Append(nil, c.UserID), Value: encode(&c)}
}

// writer is a producer's schema, and how it writes a click.
type writer struct {
	name, avsc string
	refs       []sr.SchemaReference
	encode     func(dst []byte, c *schema.Click) []byte
}

func text(b []byte, s string) []byte { return append(binary.AppendVarint(b, int64(len(s))), s...) }

const required = `{"name":"user_id","type":"long"},{"name":"session_id","type":"string"},
	{"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"url","type":"string"},{"name":"ip","type":"string"}`

func clickSchema(fields string) string {
	return `{"type":"record","name":"Click","namespace":"exactly","fields":[` + fields + `]}`
}

// ours is the click in our own schema, without the prefix.
func ours(dst []byte, c *schema.Click) []byte {
	return append(dst, schema.NewClickEncoder(0).Append(nil, c)[5:]...)
}

// writers are versions of clicks that producers may have; those of the input's own subject fit each other (FULL_TRANSITIVE).
var writers = []writer{
	{name: "optional fields before and behind, in another order", avsc: clickSchema(`{"name":"referrer","type":["null","string"],"default":null},
		{"name":"url","type":"string"},{"name":"ip","type":"string"},{"name":"user_id","type":"long"},{"name":"session_id","type":"string"},
		{"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"tags","type":{"type":"array","items":"string"},"default":[]}`),
		encode: func(b []byte, c *schema.Click) []byte {
			b = text(binary.AppendVarint(b, 1), "https://search.example/")
			b = text(text(b, c.URL), c.IP)
			b = text(binary.AppendVarint(b, c.UserID), c.SessionID)
			b = binary.AppendVarint(b, c.TimestampMs)
			return append(text(binary.AppendVarint(b, 1), "a tag"), 0)
		}},
	{name: "an enum more", avsc: clickSchema(required + `,{"name":"device","type":{"type":"enum","name":"Device","symbols":["OTHER","PHONE"]},"default":"OTHER"}`),
		encode: func(b []byte, c *schema.Click) []byte { return binary.AppendVarint(ours(b, c), 1) }},
}

// promoting belongs to a subject of its own: narrower types, which ours can read and the other way round not, a union, and a reference.
var promoting = writer{
	name: "promotions, a union and a reference", avsc: clickSchema(`{"name":"four","type":"exactly.Four"},{"name":"user_id","type":"int"},
		{"name":"session_id","type":"bytes"},{"name":"timestamp","type":["int","long"]},{"name":"url","type":"string"},{"name":"ip","type":"string"}`),
	refs: []sr.SchemaReference{{Name: "exactly.Four", Version: 1}},
	encode: func(b []byte, c *schema.Click) []byte {
		b = text(binary.AppendVarint(append(b, 1, 2, 3, 4), c.UserID), c.SessionID)
		b = binary.AppendVarint(binary.AppendVarint(b, 1), c.TimestampMs)
		return text(text(b, c.URL), c.IP)
	},
}

// registry is the stack's own, whatever the workers are told.
func (b *bundle) registry() *sr.Client {
	b.t.Helper()
	cl, err := sr.NewClient(sr.URLs(shared.Stack.RegistryURL()), sr.HTTPClient(&http.Client{Timeout: patience}))
	require.NoError(b.t, err)
	return cl
}

// register makes w a version of a subject and returns how clicks are written with it, and its id.
func (b *bundle) register(subject string, w writer) (encode func(*schema.Click) []byte, id int) {
	b.t.Helper()
	is, err := b.registry().CreateSchema(b.ctx, subject, sr.Schema{Schema: w.avsc, References: w.refs})
	require.NoError(b.t, err, w.name)
	id = is.ID
	return func(c *schema.Click) []byte {
		return w.encode(binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), c)
	}, id
}

// clickID is the id of the program's own schema of clicks.
func (b *bundle) clickID() int {
	b.t.Helper()
	is, err := b.registry().SchemaByVersion(b.ctx, b.cfg.Topics.Input+"-value", 1)
	require.NoError(b.t, err)
	return is.ID
}

func avro(id int) func(*schema.Click) []byte {
	e := schema.NewClickEncoder(id)
	return func(c *schema.Click) []byte { return e.Append(nil, c) }
}

// rows requires that the clicks first to first+n-1 are rows, each once and whole.
func (b *bundle) rows(first, n int) {
	b.t.Helper()
	rs, err := b.db.Query(b.ctx, `SELECT user_id, session_id::text, (extract(epoch FROM "timestamp") * 1000)::bigint, url, host(ip) FROM enriched_clicks
		WHERE user_id > $1 AND user_id <= $2 ORDER BY user_id`, first, first+n)
	require.NoError(b.t, err)
	defer rs.Close()
	i := first
	for ; rs.Next(); i++ {
		var c schema.Click
		require.NoError(b.t, rs.Scan(&c.UserID, &c.SessionID, &c.TimestampMs, &c.URL, &c.IP))
		require.Equal(b.t, click(i), c)
	}
	require.NoError(b.t, rs.Err())
	require.Equal(b.t, first+n, i, "rows are missing")
}

// deadLetters are the reasons of those there are, with the number of each.
func (b *bundle) deadLetters() map[string]int64 {
	b.t.Helper()
	rs, err := b.db.Query(b.ctx, `SELECT error_stage || ' ' || error_class || ' ' || error_message, count(*) FROM dead_letters GROUP BY 1`)
	require.NoError(b.t, err)
	defer rs.Close()
	out := map[string]int64{}
	for rs.Next() {
		var why string
		var n int64
		require.NoError(b.t, rs.Scan(&why, &n))
		out[why] = n
	}
	require.NoError(b.t, rs.Err())
	return out
}

// gate is a registry that can be away, in several ways.
type gate struct {
	url  string
	how  atomic.Pointer[string]
	seen atomic.Int64 // requests met while away
}

func (g *gate) away(how string) { g.how.Store(&how) }

// newGate stands before the stack's registry.
func newGate(cleanup func(func())) *gate {
	target, _ := url.Parse(shared.Stack.RegistryURL())
	proxy := httputil.NewSingleHostReverseProxy(target)
	g := &gate{}
	g.away("")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		how := *g.how.Load()
		if how != "" {
			g.seen.Add(1)
		}
		switch how {
		case "":
			proxy.ServeHTTP(w, r)
		case "cut":
			panic(http.ErrAbortHandler)
		case "slow":
			select {
			case <-r.Context().Done(): // the client has had enough
			case <-time.After(time.Minute):
			}
		case "503":
			http.Error(w, `{"error_code":50301,"message":"leader unknown"}`, http.StatusServiceUnavailable)
		case "429":
			http.Error(w, "slow down", http.StatusTooManyRequests)
		}
	}))
	g.url = s.URL
	cleanup(s.Close)
	return g
}
