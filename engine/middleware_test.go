package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// scripted is a handler that does what it is told, record by record.
type scripted struct {
	errs  []error // of each call; nil beyond
	calls int
}

func (*scripted) Tables() []Table { return nil }

func (s *scripted) Handle(_ context.Context, r *Record, out *Out) error {
	s.calls++
	if err := out.Event("out", r.Key, []byte{byte(s.calls)}, nil); err != nil {
		return err
	}
	if s.calls <= len(s.errs) {
		return s.errs[s.calls-1]
	}
	return nil
}

func prepareOne(t *testing.T, h Handler) (*Batch, error) {
	t.Helper()
	p := newPreparer(h, &Shape{Input: "in", DLQ: "dlq", Partitions: map[string]int{"out": 1, "dlq": 1}}, 1)
	return p.batch(t.Context(), &prepJob{records: []Record{{Value: []byte("v")}}})
}

func TestUseKeepsTheOrder(t *testing.T) {
	var seen []string
	say := func(what string) Middleware {
		return Around(func(ctx context.Context, r *Record, out *Out, next Handler) error {
			seen = append(seen, what)
			defer func() { seen = append(seen, "/"+what) }()
			return next.Handle(ctx, r, out)
		})
	}
	b, err := prepareOne(t, Use(&scripted{}, say("a"), say("b")))
	require.NoError(t, err)
	require.Len(t, b.Messages, 1)
	require.Equal(t, []string{"a", "b", "/b", "/a"}, seen)
}

// A panic of middleware is a panic like the handler's.
func TestRecoveryIsOutermost(t *testing.T) {
	h := &scripted{}
	b, err := prepareOne(t, Use(h, Around(func(context.Context, *Record, *Out, Handler) error { panic("no") })))
	require.NoError(t, err)
	require.EqualValues(t, 1, b.DeadLetters)
	require.Zero(t, h.calls)
}

func TestValidated(t *testing.T) {
	h := &scripted{}
	b, err := prepareOne(t, Use(h, Validated(func(r *Record) *Permanent {
		return &Permanent{Class: "invalid", Stage: "validate", Message: string(r.Value)}
	})))
	require.NoError(t, err)
	require.EqualValues(t, 1, b.DeadLetters)
	require.Zero(t, h.calls)
	b, err = prepareOne(t, Use(h, Validated(func(*Record) *Permanent { return nil })))
	require.NoError(t, err)
	require.Zero(t, b.DeadLetters)
}

func TestRetried(t *testing.T) {
	away := errors.New("away")
	permanent := &Permanent{Class: "c", Stage: "s"}
	for _, c := range []struct {
		name  string
		errs  []error
		calls int
		fails bool
		dead  int64
	}{
		{"at once", nil, 1, false, 0},
		{"a blip", []error{away, away}, 3, false, 0},
		{"too long", []error{away, away, away}, 3, true, 0},
		{"permanent", []error{permanent}, 1, false, 1},
		{"permanent in the end", []error{away, permanent}, 2, false, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &scripted{errs: c.errs}
			b, err := prepareOne(t, Use(h, Retried(3, time.Nanosecond)))
			require.Equal(t, c.calls, h.calls)
			if c.fails {
				require.ErrorIs(t, err, away)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.dead, b.DeadLetters)
			require.Len(t, b.Messages, 1, "what a try before had added is taken back")
			require.Zero(t, b.Messages[0].Seq)
			if c.dead == 0 {
				require.Equal(t, []byte{byte(c.calls)}, b.Messages[0].Value)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h := &scripted{errs: []error{away}}
	out := &Out{b: &Batch{}, rec: &Record{}, shape: &Shape{Partitions: map[string]int{"out": 1}}}
	require.ErrorIs(t, Use(h, Retried(2, time.Hour)).Handle(ctx, &Record{}, out), away)
}

func TestMeasured(t *testing.T) {
	away := errors.New("away")
	h := &scripted{errs: []error{away}}
	timed, failed := 0, 0
	p := newPreparer(Use(h, Measured(func(took time.Duration, err error) {
		if err != nil {
			require.ErrorIs(t, err, away)
			require.Zero(t, took)
			failed++
			return
		}
		timed++
	})), &Shape{Input: "in", DLQ: "dlq", Partitions: map[string]int{"out": 1, "dlq": 1}}, 1)
	_, err := p.batch(t.Context(), &prepJob{records: make([]Record, 1)})
	require.ErrorIs(t, err, away)
	_, err = p.batch(t.Context(), &prepJob{records: make([]Record, 3*measuredEach-1)})
	require.NoError(t, err)
	require.Equal(t, []int{1, 3}, []int{failed, timed})
}
