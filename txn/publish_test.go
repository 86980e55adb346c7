package txn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
)

// scripted is a producer that answers as it is told, call by call, and notes what it was asked.
type scripted struct {
	answers map[string][]error // per call, in order; when used up: nil
	calls   []string
	offsets []Offset
	stamp   engine.Stamp
	sent    []outbox.Message
	closed  bool
	took    func(call string)

	repeated []bool // per transaction, in order
}

func (s *scripted) call(ctx context.Context, name string) error {
	s.calls = append(s.calls, name)
	if ctx != nil {
		if _, ok := ctx.Deadline(); !ok {
			return errors.New(name + " without a deadline: librdkafka would wait for ever")
		}
	}
	if s.took != nil {
		s.took(name)
	}
	a := s.answers[name]
	if len(a) == 0 {
		return nil
	}
	if len(a) > 1 {
		s.answers[name] = a[1:]
	} else if a[0] != errAlways {
		s.answers[name] = nil
	}
	if a[0] == errAlways {
		return &Error{Retriable, errors.New("timed out")}
	}
	return a[0]
}

// errAlways as the last answer of a call: retriable, for ever.
var errAlways = errors.New("retriable for ever")

// noContext is what a call without one has.
var noContext context.Context

func (s *scripted) Init(ctx context.Context) error { return s.call(ctx, "init") }
func (s *scripted) Begin() error                   { return s.call(noContext, "begin") }
func (s *scripted) Produce(ctx context.Context, m *outbox.Message) error {
	s.sent = append(s.sent, *m)
	return s.call(ctx, "produce")
}
func (s *scripted) SendOffsets(ctx context.Context, topic string, o []Offset, st engine.Stamp) error {
	s.offsets, s.stamp = append([]Offset(nil), o...), st
	return s.call(ctx, "offsets "+topic)
}
func (s *scripted) Commit(ctx context.Context) error { return s.call(ctx, "commit") }
func (s *scripted) Abort(ctx context.Context) error  { return s.call(ctx, "abort") }
func (s *scripted) Close()                           { s.closed = true }
func (s *scripted) Send(context.Context) error       { return nil }
func (s *scripted) Repeated() bool {
	if len(s.repeated) == 0 {
		return false
	}
	r := s.repeated[0]
	s.repeated = s.repeated[1:]
	return r
}

func publisher(s *scripted) *Publisher {
	return &Publisher{Topic: "in", Timeout: 10 * time.Second, Log: zap.NewNop(), New: func() (Producer, error) { return s, nil }, p: hold(s, zap.NewNop())}
}

func never() bool { return false }

func anItem() []engine.Item {
	return []engine.Item{{Partition: 3, To: 12, LeaderEpoch: 5, Epoch: 7, LedgerSeq: 9, Messages: []outbox.Message{{Topic: "out", SourceOffset: 11, Value: []byte("v")}}}}
}

func classed(c Class) error { return fmt.Errorf("call: %w", &Error{c, errors.New("broken")}) }

// TestOutcomes: every class at every call leads to what the table in protocol.md says.
func TestOutcomes(t *testing.T) {
	plain := errors.New("an error without a class")
	for _, c := range []struct {
		at      string
		err     error
		want    engine.Outcome
		aborted bool
	}{
		{"begin", classed(Fatal), engine.Lost, false},
		{"begin", classed(Unknown), engine.Lost, false},
		{"begin", plain, engine.Lost, false},
		{"produce", classed(Abortable), engine.Aborted, true},
		{"produce", classed(Fatal), engine.Lost, false},
		{"produce", classed(Unknown), engine.Lost, false},
		{"produce", plain, engine.Lost, false},
		{"offsets in", classed(Abortable), engine.Aborted, true},
		{"offsets in", classed(Stale), engine.StaleStamp, true},
		{"offsets in", classed(Fatal), engine.Lost, false},
		{"offsets in", classed(Unknown), engine.Lost, false},
		{"offsets in", plain, engine.Lost, false},
		{"offsets in", classed(Retriable), engine.Committed, false}, // the same call again
		{"commit", classed(Abortable), engine.Aborted, true},
		{"commit", classed(Stale), engine.StaleStamp, true},
		{"commit", classed(Fatal), engine.Lost, false},
		{"commit", classed(Unknown), engine.Lost, false},
		{"commit", plain, engine.Lost, false},
		{"commit", classed(Retriable), engine.Committed, false},
	} {
		t.Run(fmt.Sprintf("%s %v", c.at, c.err), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{answers: map[string][]error{c.at: {c.err}}}
				got, err := publisher(s).Publish(anItem(), "stamp", never)
				require.Equal(t, c.want.String(), got.String(), "%v", s.calls)
				require.Equal(t, c.aborted, strings.Contains(strings.Join(s.calls, " "), "abort"), "%v", s.calls)
				if c.want == engine.Committed {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, c.err)
				}
			})
		})
	}
}

// TestAbortFails: as fatal, whatever led to it; a retriable abort is tried again, with a deadline of its own.
func TestAbortFails(t *testing.T) {
	for _, class := range []Class{Abortable, Stale} {
		for _, abort := range []error{classed(Fatal), classed(Abortable), classed(Unknown), errors.New("no class")} {
			s := &scripted{answers: map[string][]error{"commit": {classed(class)}, "abort": {abort}}}
			got, err := publisher(s).Publish(anItem(), nil, never)
			require.Equal(t, engine.Lost, got)
			require.ErrorIs(t, err, abort)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answers: map[string][]error{"commit": {classed(Abortable)}, "abort": {classed(Retriable), classed(Retriable)}}}
		got, _ := publisher(s).Publish(anItem(), nil, never)
		require.Equal(t, engine.Aborted, got)
		require.Equal(t, []string{"begin", "produce", "offsets in", "commit", "abort", "abort", "abort"}, s.calls)
	})
	synctest.Test(t, func(t *testing.T) { // the transaction's time is used up: the abort has its own
		s := &scripted{answers: map[string][]error{"commit": {classed(Abortable)}}}
		s.took = func(call string) {
			if call == "commit" {
				time.Sleep(10*time.Second + grace/2)
			}
		}
		got, _ := publisher(s).Publish(anItem(), nil, never)
		require.Equal(t, engine.Aborted, got)
	})
}

// TestRetriable: the same call, until its deadline, never another meanwhile; then the outcome is unknown and this producer lost.
func TestRetriable(t *testing.T) {
	for _, at := range []string{"offsets in", "commit"} {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{answers: map[string][]error{at: {errAlways}}}
			start := time.Now()
			got, err := publisher(s).Publish(anItem(), nil, never)
			require.Equal(t, engine.Lost, got)
			require.Error(t, err)
			require.Equal(t, 10*time.Second, time.Since(start).Round(time.Second))
			first := -1
			for i, c := range s.calls {
				if c == at && first < 0 {
					first = i
				}
				require.True(t, first < 0 || c == at, "%s while %s is retried", c, at)
			}
			require.Greater(t, len(s.calls)-first, 100)
		})
	}
}

// TestCancelled: a partition was lost meanwhile. Asked before the offsets and before the commit; never committed then.
func TestCancelled(t *testing.T) {
	for asked, calls := range map[int][]string{1: {"begin", "produce", "abort"}, 2: {"begin", "produce", "offsets in", "abort"}} {
		s := &scripted{}
		n := 0
		got, err := publisher(s).Publish(anItem(), nil, func() bool { n++; return n == asked })
		require.Equal(t, engine.Aborted, got)
		require.Error(t, err)
		require.Equal(t, calls, s.calls)
	}
}

// TestOffsets: one offset a partition, the latest, with our metadata and the record's leader epoch, under the stamp given.
func TestOffsets(t *testing.T) {
	item := func(p int32, to, seq int64) engine.Item {
		return engine.Item{Partition: p, To: to, Epoch: 4, LedgerSeq: seq, LeaderEpoch: int32(seq)}
	}
	s := &scripted{}
	got, err := publisher(s).Publish([]engine.Item{item(1, 10, 1), item(2, 7, 1), item(1, 20, 2), item(3, 5, 1), item(2, 9, 2), item(1, 30, 3)}, "stamp", never)
	require.NoError(t, err)
	require.Equal(t, engine.Committed, got)
	require.Equal(t, "stamp", s.stamp)
	require.Equal(t, []Offset{{1, 30, 3, "exactly/1 4 3"}, {2, 9, 2, "exactly/1 4 2"}, {3, 5, 1, "exactly/1 4 1"}}, s.offsets)
	require.True(t, IsOurs(s.offsets[0].Metadata))
	for _, other := range []string{"", "exactly", "exactly/2 1 1", "by hand"} {
		require.False(t, IsOurs(other), other)
	}
}

// TestNothingToSay: a publish whose records made no events still moves the group offset.
func TestNothingToSay(t *testing.T) {
	s := &scripted{}
	got, err := publisher(s).Publish([]engine.Item{{Partition: 1, To: 10}}, nil, never)
	require.NoError(t, err)
	require.Equal(t, engine.Committed, got)
	require.Equal(t, []string{"begin", "offsets in", "commit"}, s.calls)
}

// TestOrder: messages are produced in the order of capture, as they are.
func TestOrder(t *testing.T) {
	s := &scripted{}
	var items []engine.Item
	for i := range int64(50) {
		it := engine.Item{Partition: int32(i % 3), To: i + 1}
		for j := range int16(3) {
			it.Messages = append(it.Messages, outbox.Message{SourceOffset: i, Seq: j, Key: []byte{byte(i)}, Headers: []outbox.Header{{Key: "a"}}})
		}
		items = append(items, it)
	}
	_, err := publisher(s).Publish(items, nil, never)
	require.NoError(t, err)
	var want []outbox.Message
	for _, it := range items {
		want = append(want, it.Messages...)
	}
	require.Equal(t, want, s.sent)
}

// TestRenew (guard 8): the old producer is closed before the new one is made, and that one initialised before it is used.
func TestRenew(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	old, next := &scripted{}, &scripted{}
	p := publisher(old)
	p.New = func() (Producer, error) {
		require.True(t, old.closed, "two producers under one transactional id")
		return next, nil
	}
	require.NoError(t, p.Renew(ctx))
	require.Equal(t, []string{"init"}, next.calls)
	require.Same(t, next, p.p.Producer)

	failing := &scripted{answers: map[string][]error{"init": {classed(Fatal)}}}
	p.New = func() (Producer, error) { return failing, nil }
	require.Error(t, p.Renew(ctx))
	require.True(t, failing.closed, "a producer that could not be initialised is not left behind")
	got, err := p.Publish(anItem(), nil, never)
	require.Equal(t, engine.Lost, got)
	require.Error(t, err)

	p.New = func() (Producer, error) { return nil, errors.New("no memory") }
	require.Error(t, p.Renew(ctx))
	p.Close()
	p.Close()
}

// TestRepeated: after a transaction of which the client has sent a request twice, nothing is begun with that producer any more.
func TestRepeated(t *testing.T) {
	s := &scripted{repeated: []bool{false, true}}
	p := publisher(s)
	for range 2 {
		got, err := p.Publish(anItem(), nil, never)
		require.NoError(t, err)
		require.Equal(t, engine.Committed, got)
	}
	calls := len(s.calls)
	got, err := p.Publish(anItem(), nil, never)
	require.Equal(t, engine.Lost, got)
	require.ErrorIs(t, err, errRepeated)
	require.Len(t, s.calls, calls, "nothing was asked of it")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, p.Renew(ctx))
	got, err = p.Publish(anItem(), nil, never)
	require.NoError(t, err)
	require.Equal(t, engine.Committed, got, "the new one has had no transaction that could have been repeated")
}
