package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/exactly-pipeline/exactly/outbox"
)

// fakeRow is one partition in Postgres.
type fakeRow struct {
	next, epoch, seq, floor int64
	captured                bool
	held                    string
	leader                  int32 // of the record before next
	outbox                  []outbox.Message
	records                 []int64 // source offsets captured, as the handler counted them
	dead                    int64
	care                    Care
	begun                   *Mark // by another process, until this one claims it
}

// fakeStore compares and sets like the real one.
type fakeStore struct{ w *world }

func (s fakeStore) Claim(_ context.Context, p int32) (Claim, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	r := s.w.rows[p]
	if r == nil {
		return Claim{}, ErrNoRow
	}
	if r.held != "" {
		return Claim{}, &HeldError{By: "test", Why: r.held}
	}
	r.epoch++
	s.w.say("claim %d", p)
	if b := r.begun; b != nil {
		r.care = r.care.Claimed(r.next, b.From, b.To, true)
		r.begun = nil
	}
	c := Claim{Care: r.care, Epoch: r.epoch, Next: r.next, LedgerSeq: r.seq, Floor: r.floor, Captured: r.captured, LeaderEpoch: r.leader}
	if s.w.claimHook != nil {
		s.w.claimHook(p)
	}
	return c, nil
}

func (s fakeStore) Start(ctx context.Context, p int32, from func(context.Context) (map[int32]int64, error)) error {
	if _, err := from(ctx); err != nil {
		return err
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.rows[p] = &fakeRow{}
	return nil
}

func (s fakeStore) Drained(context.Context, int32, int64) error { return nil }

func (s fakeStore) Begin(_ context.Context, marks []Mark) (map[int32]bool, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if err := s.w.beginError; err != nil {
		s.w.beginError = nil
		return nil, err
	}
	ours := map[int32]bool{}
	for _, m := range marks {
		r := s.w.rows[m.Partition]
		if r.next == m.From && r.epoch == m.Epoch {
			ours[m.Partition], r.begun = true, &m
			s.w.say("begin %d [%d,%d)", m.Partition, m.From, m.To)
		}
	}
	return ours, nil
}

func (s fakeStore) Leave(_ context.Context, marks []Mark) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for _, m := range marks {
		if r := s.w.rows[m.Partition]; r.epoch == m.Epoch && r.begun != nil {
			r.begun = nil
			s.w.say("leave %d", m.Partition)
		}
	}
	return nil
}

func (s fakeStore) Capture(ctx context.Context, batches []*Batch) ([]int64, error) {
	s.w.mu.Lock()
	hook := s.w.captureHook
	s.w.capturing = true
	s.w.mu.Unlock()
	var err error
	write := true
	if hook != nil {
		err, write = hook(ctx, batches)
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.capturing = false
	seqs := make([]int64, len(batches))
	if !slices.IsSortedFunc(batches, func(a, b *Batch) int { return int(a.Partition - b.Partition) }) {
		s.w.blame("locks are taken in another order than the partitions'")
	}
	for i, b := range batches {
		if r := s.w.rows[b.Partition]; write && r.next == b.From && r.epoch == b.Epoch {
			s.w.write(r, b)
			seqs[i] = r.seq
		}
	}
	s.w.captures = append(s.w.captures, batches)
	return seqs, err
}

func (w *world) write(r *fakeRow, b *Batch) {
	if b.Floor < r.floor && r.captured {
		w.blame("partition %d: floor %d below %d", b.Partition, b.Floor, r.floor)
	}
	if b.To-b.From != b.Records { // the input here has no holes
		w.blame("partition %d: captured [%d,%d) with %d records", b.Partition, b.From, b.To, b.Records)
	}
	r.next, r.seq, r.captured, r.floor = b.To, r.seq+1, true, max(r.floor, b.Floor)
	r.dead += b.DeadLetters
	r.care, r.begun = b.Care, nil
	for _, m := range b.Messages {
		c := m
		c.Key, c.Value = slices.Clone(m.Key), slices.Clone(m.Value)
		c.Headers = slices.Clone(m.Headers)
		for i := range c.Headers {
			c.Headers[i].Value = slices.Clone(c.Headers[i].Value)
		}
		r.outbox = append(r.outbox, c)
	}
	for o := b.From; o < b.To; o++ {
		r.records = append(r.records, o)
	}
}

func (s fakeStore) Gap(_ context.Context, p int32, from, to int64, limit int) ([]outbox.Message, int64, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.say("gap %d [%d,%d)", p, from, to)
	var out []outbox.Message
	for _, m := range s.w.rows[p].outbox {
		if m.SourceOffset < from || m.SourceOffset >= to {
			continue
		}
		if len(out) >= limit && out[len(out)-1].SourceOffset != m.SourceOffset {
			return out, m.SourceOffset, nil
		}
		out = append(out, m)
	}
	return out, to, nil
}

func (s fakeStore) Incarnation(context.Context) (bool, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.w.storeAway {
		return false, errors.New("connection refused")
	}
	return !s.w.replaced, nil
}

func (s fakeStore) TopicIDs(context.Context) (map[string]string, error) {
	return map[string]string{"in": "1", "out": "2", "dlq": "3"}, nil
}

// echo is a handler: one event a record. fails decides about records it refuses, after half of its work.
type echo struct{ fails func(r *Record) error }

func (echo) Tables() []Table { return []Table{{Name: "rows", Columns: []string{"v"}}} }

func (h echo) Handle(_ context.Context, r *Record, out *Out) error {
	row := out.BeginRow(0, 1)
	out.EndRow(0, append(row, 0xff, 0xff, 0xff, 0xff))
	headers := []outbox.Header{{Key: "exactly-source", Value: out.Source()}}
	if err := out.Event("out", r.Key, append([]byte("seen "), r.Value...), headers); err != nil {
		return err
	}
	if h.fails != nil {
		return h.fails(r)
	}
	return nil
}

// check says what is not exactly once: every record of the partition in both sinks, in order, with the same bytes.
func (w *world) check(p int32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.wrong) > 0 {
		return fmt.Errorf("%v", w.wrong)
	}
	r, n := w.rows[p], int64(len(w.logs[p]))
	if r == nil {
		return fmt.Errorf("partition %d has no row", p)
	}
	if r.next != n || w.offsets[p].at != n {
		return fmt.Errorf("partition %d: %d records, stored offset %d, group offset %d", p, n, r.next, w.offsets[p].at)
	}
	if int64(len(r.records)) != n || int64(len(r.outbox)) != n || int64(len(w.out[p])) != n {
		return fmt.Errorf("partition %d: %d records, %d captured, %d in the outbox, %d in Kafka", p, n, len(r.records), len(r.outbox), len(w.out[p]))
	}
	for i := range n {
		want := r.outbox[i]
		if got := w.out[p][i]; r.records[i] != i || fmt.Sprint(got) != fmt.Sprint(want) || string(got.Value) != "seen "+string(w.logs[p][i].Value) && got.Topic == "out" {
			return fmt.Errorf("partition %d, record %d: Kafka has %v, the outbox %v", p, i, got, want)
		}
	}
	return nil
}
