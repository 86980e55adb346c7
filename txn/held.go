package txn

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
)

// errOverrun is a call of the client that did not come back at its deadline: what it did is unknown, and so is what it still will.
var errOverrun = errors.New("the client did not come back from the call at its deadline")

// grace is what a call may take beyond its deadline before it counts as one that does not come back: a client looks at its clock late
// where the processor is busy.
const grace = 2 * time.Second

// held is a producer held to its deadlines from outside. librdkafka's AbortTransaction was seen to stay away for minutes, whatever its
// timeout, after the transaction's coordinator had been stopped; a worker that waits for it is alive to its group and does nothing.
// After an overrun the producer is not used again: guard 8's next one fences whatever this one still sends. One goroutine calls.
type held struct {
	Producer
	log  *zap.Logger
	away chan struct{} // of the call that overran, closed when it comes back; nil: none did
}

func hold(p Producer, log *zap.Logger) *held { return &held{Producer: p, log: log} }

// by runs a call that has to be back by ctx's deadline.
func (h *held) by(ctx context.Context, name string, call func() error) error {
	if h.away != nil {
		return errOverrun
	}
	var err error
	back := make(chan struct{})
	go func() {
		defer close(back)
		err = call()
	}()
	deadline, _ := ctx.Deadline()
	late := time.NewTimer(time.Until(deadline) + grace)
	defer late.Stop()
	select {
	case <-back:
		return err
	case <-late.C:
		h.away = back
		h.log.Error("the Kafka client does not come back from a call: its producer is left behind, a new one takes its place", zap.String("call", name))
		return &Error{Class: Fatal, Err: errOverrun}
	}
}

func (h *held) Init(ctx context.Context) error {
	return h.by(ctx, "InitTransactions", func() error { return h.Producer.Init(ctx) })
}

func (h *held) Begin(ctx context.Context) error {
	return h.by(ctx, "BeginTransaction", h.Producer.Begin)
}

func (h *held) SendOffsets(ctx context.Context, topic string, offsets []Offset, s engine.Stamp) error {
	return h.by(ctx, "SendOffsetsToTransaction", func() error { return h.Producer.SendOffsets(ctx, topic, offsets, s) })
}

func (h *held) Commit(ctx context.Context) error {
	return h.by(ctx, "CommitTransaction", func() error { return h.Producer.Commit(ctx) })
}

func (h *held) Abort(ctx context.Context) error {
	return h.by(ctx, "AbortTransaction", func() error { return h.Producer.Abort(ctx) })
}

// Close ends the producer, waiting no longer than timeout. One that is away in a call is closed when it comes back from it: closing it
// under the call would take the memory from under the client. If it never does, it goes with the process.
func (h *held) Close(timeout time.Duration) {
	if h.away != nil {
		go func() {
			<-h.away
			h.Producer.Close()
			h.log.Info("the Kafka client came back from its call, its producer is closed")
		}()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	// An overrun is said by then; there is nothing left to do about it.
	_ = h.by(ctx, "Close", func() error { h.Producer.Close(); return nil })
}
