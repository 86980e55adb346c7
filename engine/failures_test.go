package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var unmade map[string]int // nil for good

// tripping panics as a record's value says.
type tripping struct{ many }

func (h tripping) Handle(ctx context.Context, r *Record, out *Out) error {
	if err := h.many.Handle(ctx, &Record{Value: []byte{1}, Offset: r.Offset}, out); err != nil { // something that has to be taken back
		return err
	}
	switch string(r.Value) {
	case "index":
		_ = r.Value[len(r.Headers)+100]
	case "nil":
		unmade["x"] = 1
	case "text":
		panic(fmt.Sprintf("could not parse %s", "somebody@example.com"))
	}
	return nil
}

// A panic makes a dead letter in its place, with the hash of its stack: the same for the same way there. What the panic says of the record's content is
// told nowhere.
func TestPanicsBecomeDeadLetters(t *testing.T) {
	p := newPreparer(tripping{}, &Shape{Input: "in", DLQ: "dlq", Partitions: map[string]int{"out": 4, "dlq": 4}}, 1)
	var records []Record
	for i, v := range []string{"fine", "index", "fine", "index", "nil", "text", "fine"} {
		records = append(records, Record{Offset: int64(i), Value: []byte(v)})
	}
	b, err := p.batch(t.Context(), &prepJob{records: records})
	require.NoError(t, err)
	require.EqualValues(t, 7, b.Records)
	require.EqualValues(t, 4, b.DeadLetters)
	require.Equal(t, map[string]int64{ClassPanic: 4}, b.classes)
	require.Len(t, b.Messages, 7, "what a handler added before it panicked is taken back")
	var says []string
	for i, m := range b.Messages {
		require.EqualValues(t, i, m.SourceOffset)
		if m.Topic == "dlq" {
			require.Equal(t, records[i].Value, m.Value)
			for _, h := range m.Headers {
				if h.Key == messageHeader {
					says = append(says, string(h.Value))
				}
			}
		}
	}
	require.Regexp(t, `^the handler panicked \(stack [0-9a-f]{12}\): runtime error: index out of range`, says[0])
	require.Equal(t, says[0], says[1])
	require.NotEqual(t, says[0][:40], says[2][:40], "another line is another stack")
	require.NotContains(t, says[3], "somebody@example.com")
	require.Contains(t, says[3], "string")
}

// The store refuses a record's rows: it becomes a dead letter, alone and in its place, and everything else is captured.
func TestRefusedRows(t *testing.T) {
	seen := &watcher{events: map[EventKind]int{}, offsets: map[int32][][2]int64{}}
	run(t, newWorld(2, 40), func(b *bundle) {
		b.cfg.Observer, b.cfg.MaxRecords = seen, 30
		b.captureHook = func(_ context.Context, batches []*Batch) (error, bool) {
			for _, batch := range batches {
				if batch.Partition == 1 && batch.From <= 17 && 17 < batch.To && batch.DeadLetters == 0 {
					return &RefusedError{Err: errors.New("22021"), Records: []Refused{{1, 17, &Permanent{Class: ClassRefused, Stage: "capture", Message: "no"}}}}, false
				}
			}
			return nil, true
		}
	}, func(b *bundle) {
		b.assign("g1", 0, 1)
		time.Sleep(time.Second)
		b.settled()
		b.lock(func() {
			require.Zero(t, b.rows[0].dead)
			require.EqualValues(t, 1, b.rows[1].dead)
			for i, m := range b.rows[1].outbox {
				require.EqualValues(t, i, m.SourceOffset)
				require.Equal(t, i == 17, m.Topic == "dlq")
			}
		})
	})
	seen.mu.Lock()
	defer seen.mu.Unlock()
	require.Equal(t, map[string]int64{ClassRefused: 1}, seen.dead)
	require.Positive(t, seen.reasons[ReasonPostgres])
}
