package bench

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/schema"
)

// BenchmarkLatency sends clicks at a rate and takes the time of each, from when it was due to be sent until it is visible in a sink: an event to a
// reader of committed ones, a row to any query. A sender or a worker that falls behind makes the clicks due meanwhile late, and that counts
// (no coordinated omission). Nothing is set differently between the rates.
func BenchmarkLatency(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	*total = 0
	r := newRig(ctx, b)
	next := int64(1_000_000_000) // no user's id
	for _, client := range []string{"confluent", "franz"} {
		p := r.place("latency-" + client)
		p.clear(ctx, b)
		setUp(ctx, b, p)
		l := newLatency(ctx, b, p)
		l.next = next
		w := startWorker(client)(ctx, b, p, 0)
		l.send(ctx, b, 1000, 5*time.Second) // what is slow once: joining, plans of statements, first pages
		for rate := range strings.SplitSeq(*rates, ",") {
			n, err := strconv.Atoi(rate)
			require.NoError(b, err)
			b.Run("client="+client+"/rate="+rate, func(b *testing.B) {
				for b.Loop() {
					l.send(ctx, b, n, *lasts).report(b)
				}
			})
		}
		w.stop(b)
		l.close(b)
		next = l.next // the next one has to work through these first, and they are not its
	}
}

// latency sends to the input and looks at both sinks.
type latency struct {
	p    *place
	cl   *kgo.Client // sends
	out  *kgo.Client // reads events
	conn *pgx.Conn
	enc  *schema.ClickEncoder
	gen  *clicks.Generator
	next int64 // number of the next click, which is its key
}

func newLatency(ctx context.Context, b *testing.B, p *place) *latency {
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.stack.Brokers()), kgo.DefaultProduceTopic(input), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(1_000_000))
	require.NoError(b, err)
	out, err := kgo.NewClient(kgo.SeedBrokers(p.stack.Brokers()), kgo.ConsumeTopics(p.output), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond), kgo.FetchMinBytes(1))
	require.NoError(b, err)
	conn, err := pgx.Connect(ctx, p.dsn)
	require.NoError(b, err)
	return &latency{p: p, cl: cl, out: out, conn: conn, enc: schema.NewClickEncoder(p.clickSchema(ctx, b)), gen: clicks.NewGenerator(clicks.GeneratorConfig{Live: true})}
}

func (l *latency) close(b *testing.B) {
	l.cl.Close()
	l.out.Close()
	require.NoError(b, l.conn.Close(context.Background()))
}

// clickSchema is the id that clicks are written under.
func (p *place) clickSchema(ctx context.Context, b *testing.B) int {
	reg, err := schema.NewRegistry(p.stack.RegistryURL())
	require.NoError(b, err)
	defer reg.Close()
	id, _, err := reg.Register(ctx, input+"-value", schema.ClickAvsc)
	require.NoError(b, err)
	return id
}

// seen is where a click came from, when it was due, and when its event was there.
type seen struct {
	partition  int32
	offset     int64
	due, event time.Time
}

// moved is when a stored offset was first seen.
type moved struct {
	next int64
	at   time.Time
}

// times are of one run, in microseconds.
type times struct{ event, row, both *hdrhistogram.Histogram }

func (l *latency) send(ctx context.Context, b *testing.B, rate int, lasts time.Duration) times {
	n := int64(rate) * int64(lasts) / int64(time.Second)
	first, start := l.next, time.Now().Add(50*time.Millisecond)
	l.next += n
	due := func(i int64) time.Time {
		return start.Add(time.Duration((i - first) * int64(time.Second) / int64(rate)))
	}
	var wg sync.WaitGroup
	watch, stop := context.WithCancel(ctx)
	rows := make([][]moved, *parts)
	wg.Go(func() { l.watch(watch, rows) })
	wg.Go(func() {
		for i := first; i < first+n; {
			time.Sleep(time.Until(due(i)))
			for now := time.Now(); i < first+n && !due(i).After(now); i++ {
				var c schema.Click
				l.gen.Next(&c)
				l.cl.Produce(ctx, &kgo.Record{Key: strconv.AppendInt(nil, i, 10), Value: l.enc.Append(nil, &c)}, nil)
			}
		}
	})
	all := make([]seen, 0, n)
	for int64(len(all)) < n {
		c, cancel := context.WithTimeout(ctx, time.Minute)
		fs := l.out.PollFetches(c)
		cancel()
		require.NotZero(b, fs.NumRecords(), "events: %d of %d", len(all), n)
		at := time.Now()
		fs.EachRecord(func(r *kgo.Record) {
			i, err := strconv.ParseInt(string(r.Key), 10, 64)
			require.NoError(b, err)
			if i < first {
				return
			}
			s := seen{due: due(i), event: at}
			_, err = fmt.Sscanf(string(r.Headers[0].Value), input+"/%d/%d", &s.partition, &s.offset)
			require.NoError(b, err)
			all = append(all, s)
		})
	}
	stop()
	wg.Wait()
	return l.times(b, all, rows)
}

// watch notes each stored offset when it is first seen.
func (l *latency) watch(ctx context.Context, rows [][]moved) {
	for ctx.Err() == nil {
		rs, err := l.conn.Query(context.WithoutCancel(ctx), `SELECT source_partition, next_offset FROM partition_offsets`)
		if err != nil {
			return
		}
		at := time.Now()
		for rs.Next() {
			var id int32
			var next int64
			if rs.Scan(&id, &next) == nil && (len(rows[id]) == 0 || rows[id][len(rows[id])-1].next < next) {
				rows[id] = append(rows[id], moved{next, at})
			}
		}
		rs.Close()
		time.Sleep(time.Millisecond)
	}
}

func (l *latency) times(b *testing.B, all []seen, rows [][]moved) times {
	hist := func() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3) }
	t := times{hist(), hist(), hist()}
	for _, s := range all {
		of := rows[s.partition]
		lo, hi := 0, len(of)
		for lo < hi {
			if mid := (lo + hi) / 2; of[mid].next > s.offset {
				hi = mid
			} else {
				lo = mid + 1
			}
		}
		require.Less(b, lo, len(of), "an event without a row: %d/%d", s.partition, s.offset)
		row, event := of[lo].at.Sub(s.due), s.event.Sub(s.due)
		require.NoError(b, t.row.RecordValue(max(row.Microseconds(), 1)))
		require.NoError(b, t.event.RecordValue(max(event.Microseconds(), 1)))
		require.NoError(b, t.both.RecordValue(max(row, event, time.Microsecond).Microseconds()))
	}
	return t
}

func (t times) report(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	for _, h := range []struct {
		name string
		*hdrhistogram.Histogram
	}{{"both", t.both}, {"event", t.event}, {"row", t.row}} {
		for _, q := range []float64{50, 99, 99.9} {
			b.ReportMetric(float64(h.ValueAtQuantile(q))/1000, fmt.Sprintf("ms-%s-p%v", h.name, q))
		}
		b.ReportMetric(float64(h.Max())/1000, "ms-"+h.name+"-max")
	}
}
