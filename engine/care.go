package engine

import (
	"errors"
	"fmt"
	"math"
	"sync"
)

// Care is what a partition's row says of records that an owner began and, being gone, never captured. Something in them may have ended its process (no
// memory left, a crash in C), and would end the next one's: they are handled few at a time, each time marked before, until the record is found that does it.
// What else ends a process in the middle of its first batch, a SIGKILL, only costs the next owner that care.
type Care struct {
	To       int64 // records below it are handled with care; no more than the stored offset: there are none
	Step     int   // so many at a time
	Attempts int   // how often an owner had begun the first of them, alone, and was gone
}

// Mark says, before it does, that a worker hands the records [From, To) of a partition to the handler. It stands in the partition's row until they are
// captured or the partition is given up; whoever claims the row and finds the mark of another process knows that this one is gone, or as good as gone.
type Mark struct {
	Partition int32
	Epoch     int64
	From, To  int64 // From is the stored offset
}

// aloneBelow is up to how many records are handled one at a time at once. Of more, first as many groups as a group has records are: each
// group, and then each record, is a capture of its own, and nobody else's records are handled meanwhile.
const aloneBelow = 200

// Claimed is what a row's care becomes when it is claimed: next is the stored offset, [from, to) what was begun last, and gone whether it is not
// captured and whoever began it another process.
func (c Care) Claimed(next, from, to int64, gone bool) Care {
	if from != next { // it went on since
		c.Attempts, gone = 0, false
	}
	switch {
	case gone && c.On(next) && c.Step == 1:
		c.Attempts++
	case gone && to-next <= aloneBelow:
		c = Care{To: to, Step: 1}
	case gone:
		c = Care{To: to, Step: int(math.Sqrt(float64(to - next)))}
	}
	if !c.On(next) {
		return Care{}
	}
	return c
}

// On says whether the record at the stored offset is handled with care.
func (c Care) On(next int64) bool { return c.To > next }

// Behind is what is left when the records below an offset are captured.
func (c Care) Behind(to int64) Care {
	if !c.On(to) {
		return Care{}
	}
	return Care{To: c.To, Step: c.Step}
}

// Turns has workers of one process handle records in turns, where one of them takes care: what ends the process meanwhile must be the record that is
// marked. nil: there is one worker.
type Turns struct{ mu sync.RWMutex }

func (t *Turns) take(alone bool) {
	switch {
	case t == nil:
	case alone:
		t.mu.Lock()
	default:
		t.mu.RLock()
	}
}

func (t *Turns) give(alone bool) {
	switch {
	case t == nil:
	case alone:
		t.mu.Unlock()
	default:
		t.mu.RUnlock()
	}
}

// quarantined is what becomes of a record that was begun alone so often.
func quarantined(times int) *Permanent {
	return &Permanent{Class: ClassQuarantined, Stage: "handle", Message: fmt.Sprintf("the process that handled it, and nothing else, was gone %d times before it was captured", times)}
}

// errNotOurs: the row did not match when a mark was to be written.
var errNotOurs = errors.New("another worker has claimed the partition")

// markFailed is Postgres' trouble, not the handler's.
type markFailed struct{ error }

func (e markFailed) Unwrap() error { return e.error }
func (markFailed) Reason() string  { return ReasonPostgres }
