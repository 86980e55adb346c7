package behaviour

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/schema"
)

// class is one class of dead letters, and how a record comes to be one.
type class struct {
	name  string
	spoil func(r *kgo.Record)
}

const panics, poison = "panics", "poison"

// classes are those that a record of the input can be of, but quarantined: what ends processes is dosed.
func (b *bundle) classes() []class {
	_, other := b.register(b.cfg.Topics.Input+"-other", writer{avsc: `{"type":"record","name":"Order","fields":[]}`})
	value := func(of func([]byte) []byte) func(*kgo.Record) { return func(r *kgo.Record) { r.Value = of(r.Value) } }
	changed := func(change func(*schema.Click)) func(*kgo.Record) {
		return func(r *kgo.Record) {
			var c schema.Click
			reg, err := schema.NewRegistry(shared.Stack.RegistryURL())
			require.NoError(b.t, err)
			defer reg.Close()
			require.NoError(b.t, schema.NewClickDecoder(reg).Decode(b.ctx, r.Value, &c))
			change(&c)
			r.Value = avro(b.clickID())(&c)
		}
	}
	return []class{
		{"no_value", value(func([]byte) []byte { return nil })},
		{"not_avro", value(func([]byte) []byte { return []byte(`<order id="12"/>`) })},
		{"unknown_schema", value(func(v []byte) []byte { return append([]byte{0, 0x7f, 0xff, 0xff, 0xff}, v[5:]...) })},
		{"incompatible_schema", value(func([]byte) []byte {
			return []byte{0, byte(other >> 24), byte(other >> 16), byte(other >> 8), byte(other)}
		})},
		{"decode", value(func(v []byte) []byte { return bytes.Clone(v[:len(v)-1]) })},
		{"invalid", changed(func(c *schema.Click) { c.UserID = -1 })},
		{"refused", changed(func(c *schema.Click) { c.URL += "?refused" })},
		{"panic", func(r *kgo.Record) { r.Key = []byte(panics) }},
	}
}

// Every class of dead letters among good records, two workers, and one of them killed at each point of a capture and of a publish, and at those that only
// such records lead to. Each bad record is one dead letter, of its class, and each good one a row.
func TestEveryClassBesideKills(t *testing.T) {
	const good, quarantined = 600, 2
	b := setup(t, "EXACTLY_DEAD_LETTERS_MAX_SHARE=0")
	_, err := b.db.Exec(b.ctx, `ALTER TABLE enriched_clicks ADD CONSTRAINT not_these CHECK (url NOT LIKE '%?refused')`)
	require.NoError(t, err)
	classes, known := b.classes(), avro(b.clickID())
	letters := map[string]int64{}
	// round produces good records, and of each class two among them.
	clean := 0
	round := func(poisons int) {
		var rs []*kgo.Record
		for range good {
			rs = append(rs, record(int32(clean%partitions), clean, known))
			clean++
		}
		for i := range 2 * len(classes) {
			r := record(int32(i%partitions), 1_000_000+i, known)
			classes[i%len(classes)].spoil(r)
			letters[classes[i%len(classes)].name]++
			rs = slices.Insert(rs, 17+i*31, r)
		}
		for i := range poisons {
			r := record(int32(i), 2_000_000, known)
			r.Key = []byte(poison)
			letters["quarantined"]++
			rs = slices.Insert(rs, len(rs)/2, r)
		}
		b.produce(rs...)
	}
	// Two workers, each started again when it ends, as a supervisor does it. The first has the point, as long as it was not hit.
	workers := [2]*worker{}
	deaths := 0
	supervise := func(point string) {
		for i, w := range workers {
			if w != nil && !w.ended() {
				continue
			}
			if w != nil {
				deaths++
			}
			arm := failpoint(fp.HandleRecord + "=panic:" + panics + "," + fp.HandleRecord + "=kill:" + poison)
			if i == 0 && point != "" && !b.hit(point) {
				arm += "," + point + "=kill"
			}
			workers[i] = b.start([]string{"a", "b"}[i], arm)
		}
	}
	through := func() bool { return b.stored() == b.sent && b.published() == b.sent }
	for _, point := range []string{
		fp.BeginMarked, fp.CaptureBefore, fp.CaptureCopied, fp.CaptureBisect, fp.CaptureCommitSent, fp.CaptureCommitted,
		fp.PublishProduced, fp.PublishOffsetsSent, fp.PublishCommitSent, fp.PublishCommitted,
	} {
		if workers[0] != nil { // it has the last round's point
			workers[0].kill()
		}
		round(0)
		b.until("a worker is killed at "+point, func() bool {
			supervise(point)
			if !b.hit(point) && through() { // all of it was the other's
				round(0)
			}
			return b.hit(point)
		})
	}
	round(quarantined)
	b.until("all is through", func() bool { supervise(""); return through() })
	t.Logf("%d deaths, %d records, %v", deaths, b.sent, letters)
	report := b.audit(true)
	require.EqualValues(t, b.sent, report.Totals.Input)
	got := map[string]int64{}
	rows, err := b.db.Query(b.ctx, `SELECT error_class, count(*) FROM dead_letters GROUP BY 1`)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		var n int64
		require.NoError(t, rows.Scan(&name, &n))
		got[name] = n
	}
	require.NoError(t, rows.Err())
	require.Equal(t, letters, got)
	require.EqualValues(t, clean, b.scalar(`SELECT count(*) FROM enriched_clicks`))
	b.rows(0, clean)
}
