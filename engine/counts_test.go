package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCell(t *testing.T) {
	c := Counts{Window: time.Minute}
	for at, start := range map[int64]int64{0: 0, 1: 0, 59_999: 0, 60_000: 60_000, 1_769_817_659_999: 1_769_817_600_000, -1: -60_000, -60_000: -60_000, -60_001: -120_000} {
		require.Equal(t, Cell{start, "LI"}, c.Cell(at, "LI"), "%d ms", at)
	}
}

// counting counts each record as its value, and then fails as it is told.
type counting struct {
	fails map[string][]error // by value; each once
}

func (*counting) Tables() []Table { return nil }

func (h *counting) Handle(_ context.Context, r *Record, out *Out) error {
	v := string(r.Value)
	out.Count(Cell{60_000, v})
	if fails := h.fails[v]; len(fails) > 0 {
		h.fails[v] = fails[1:]
		return fails[0]
	}
	return nil
}

func (*counting) Counts() *Counts { return &Counts{Table: "t"} }

func TestCountsOf(t *testing.T) {
	require.Equal(t, "t", CountsOf(&counting{}).Table)
	require.Nil(t, CountsOf(many{}))
}

// A record is counted once, however often it was tried; not if it became a dead letter, whatever it had counted before.
func TestCountsAreTakenBack(t *testing.T) {
	away := errors.New("away")
	h := &counting{fails: map[string][]error{"blip": {away}, "bad": {&Permanent{Class: "c"}}, "blip, then bad": {away, &Permanent{Class: "c"}}, "away": {away, away}}}
	p := newPreparer(Use(h, Retried(2, time.Nanosecond)), &Shape{Input: "in", DLQ: "dlq", Partitions: map[string]int{"out": 1, "dlq": 1}}, 1)
	job := &prepJob{}
	for i, v := range []string{"LI", "blip", "LI", "bad", "refused", "AT", "blip, then bad", "LI", "away", "never"} {
		job.records = append(job.records, Record{Offset: int64(i), Value: []byte(v)})
	}
	job.refused = map[int64]*Permanent{4: {Class: ClassRefused}}
	b, err := p.batch(t.Context(), job)
	require.ErrorIs(t, err, away)
	require.Equal(t, []int64{8, 3}, []int64{b.To, b.DeadLetters})
	require.Equal(t, map[Cell]int64{{60_000, "LI"}: 3, {60_000, "blip"}: 1, {60_000, "AT"}: 1}, b.Counts)
	require.Equal(t, []Cell{{60_000, "AT"}, {60_000, "LI"}, {60_000, "blip"}}, b.Cells())
}
