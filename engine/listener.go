package engine

// Messages to run, besides Event's own.
type (
	evRebalance struct {
		membership int
		kind       EventKind // assigned, revoked, lost
		partitions []int32
		stamp      Stamp
		done       chan struct{} // closed when nothing of the partitions is left
	}
	evStep struct {
		partition int32
		e         Event
	}
	evFailed struct {
		partition int32
		life      uint64
		reason    string // of the transient failure
		err       error
	}
	evSourceError struct {
		partition int32
		err       error
		done      chan struct{} // closed when it has been dealt with
	}
	evPrepared struct{ p prepared }
	evCaptured struct {
		batches []*Batch
		seqs    []int64
		err     error
		took    int64 // nanoseconds
	}
	evPublished struct {
		o     Outcome
		err   error
		took  int64
		trace string
	}
	evGap struct {
		partition int32
		life      uint64
		item      Item
		err       error
	}
	evChecked struct {
		changed string
	}
	evFatal struct{ err error }
	evCheck struct{} // time to compare topic ids
	evForce struct{} // the stop timeout is over
	evAll   []any    // several at once, in order
)

// listener carries rebalances from the poll goroutine to run, and holds the poll until they are dealt with.
type listener struct {
	w          *Worker
	membership int
}

func (l *listener) tell(k EventKind, parts []int32, s Stamp) {
	e := evRebalance{l.membership, k, parts, s, make(chan struct{})}
	l.w.send(e)
	l.w.await(e.done)
}

// await holds the poll goroutine until run has dealt with what it was sent, or has ended.
func (w *Worker) await(done chan struct{}) {
	select {
	case <-done:
	case <-w.ctx.Done():
	}
}

// Assigned implements Listener.
func (l *listener) Assigned(parts []int32, s Stamp) { l.tell(EvAssigned, parts, s) }

// Revoked implements Listener.
func (l *listener) Revoked(parts []int32, s Stamp) { l.tell(EvRevoked, parts, s) }

// Lost implements Listener.
func (l *listener) Lost(parts []int32, s Stamp) { l.tell(EvLost, parts, s) }
