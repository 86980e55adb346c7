package confluent

import (
	"sync"
	"time"
)

// debugLevel is syslog's, which librdkafka uses.
const debugLevel = 7

// What librdkafka says with debug=eos,broker (rdkafka_txnmgr.c and rdkafka_broker.c, 2.15.0): a line for each answer to an EndTxn, one of its
// own making included (the connection broke, the time was up), after which it sends the request again; one for each connection that fails,
// before anything is sent again; and one when the transaction is over.
const (
	debugged    = "eos,broker"
	tagEndTxn   = "ENDTXN"
	tagFail     = "FAIL"
	tagComplete = "TXNCOMPLETE"
)

const (
	// librdkafka sends a TxnOffsetCommit whose connection broke again after 500 ms, a figure that stands in its code.
	repeatedOffsets = 450 * time.Millisecond
	// How long the line that a transaction is over may take to come through the queue of logs.
	lineWithin = time.Second
)

// repeats finds out whether the client has sent a request of the transaction twice. It sends EndTxn and TxnOffsetCommit again by itself
// when their connection breaks, with the same producer epoch, since it does not speak KIP-890; nothing but its debug log tells. What can't
// be told counts as repeated: that costs a new producer, and nothing else.
type repeats struct {
	mu       sync.Mutex
	answers  int           // to EndTxn, in this transaction
	failed   bool          // a connection, in this transaction
	slow     bool          // SendOffsetsToTransaction took as long as a repeated TxnOffsetCommit takes
	complete chan struct{} // closed when the transaction is over and all it had to say was said
	over     bool
}

func newRepeats() *repeats { return &repeats{complete: make(chan struct{})} }

// begin begins another transaction.
func (r *repeats) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers, r.failed, r.slow, r.over, r.complete = 0, false, false, false, make(chan struct{})
}

// told takes a line of the debug log.
func (r *repeats) told(tag string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch tag {
	case tagEndTxn:
		r.answers++
	case tagFail:
		r.failed = true
	case tagComplete:
		if !r.over {
			r.over = true
			close(r.complete)
		}
	}
}

func (r *repeats) sentOffsets(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slow = r.slow || took >= repeatedOffsets
}

// any says whether anything may have been sent twice in the transaction, which is over.
func (r *repeats) any() bool {
	r.mu.Lock()
	complete := r.complete
	r.mu.Unlock()
	late := time.NewTimer(lineWithin)
	defer late.Stop()
	select {
	case <-complete:
	case <-late.C:
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.slow && r.failed || r.answers > 1
}
