package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/outbox"
)

// A failure is permanent or transient, and its type says which.
//
//	*Permanent      the record becomes a dead letter, in the same capture as its neighbours
//	*RefusedError   the store refused rows for what is in them: their records become dead letters, alone, once claimed again
//	any other       transient: the partition is given up, waits with a jittered back-off, and is claimed again, for as long as it takes.
//	                Meanwhile it is paused; the other partitions and the poller go on. Nothing is dropped, nothing becomes a dead letter.

// Permanent is an error that trying again can't mend: the record becomes a dead letter.
type Permanent struct {
	Class   string // what was wrong, for people to filter by
	Stage   string // decode, validate, enrich, …
	Message string // no personal data
}

func (e *Permanent) Error() string { return fmt.Sprintf("%s (%s): %s", e.Stage, e.Class, e.Message) }

// Pointing is a Handler whose records only point to what they are about. Instead is what a dead letter of the record has for its content; nil: the
// record itself. It is asked where the handler does not get to see the record.
type Pointing interface {
	Instead(ctx context.Context, r *Record) (*Letter, error)
}

// Letter is the content of a dead letter that is not the record itself.
type Letter struct {
	Key, Value []byte
	Headers    []outbox.Header // the first record's own
	Behind     []outbox.Header // further ones of ours, behind all others
	Keep       func(out *Out)  // what of the record is captured all the same; may be nil
}

// RefusedError says that the store refused rows for what is in them, and which records they are of. Nothing of that transaction was written.
type RefusedError struct {
	Records []Refused
	Err     error
}

func (e *RefusedError) Error() string { return e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// Refused is one of those records, and what its dead letter will say.
type Refused struct {
	Partition int32
	Offset    int64
	Why       *Permanent
}

// The classes of what the engine itself calls permanent.
const (
	ClassPanic   = "panic"   // the handler panicked
	ClassRefused = "refused" // Postgres can't hold the row

	ClassTooLarge = "too_large" // Kafka does not take the event

	ClassQuarantined = "quarantined" // it ends the process that handles it: see Care
)

func asPermanent(err error) *Permanent {
	var p *Permanent
	if errors.As(err, &p) {
		return p
	}
	return nil
}

// Reasons of transient failures, as metrics tell them. An error of the handler's may name another: interface{ Reason() string }.
const (
	ReasonPostgres = "postgres"
	ReasonKafka    = "kafka"
	ReasonHandler  = "handler"

	ReasonDeadLetters = "dead_letters" // too many of them: see DeadShare
)

// reasonOf is what a handler's error says of itself, or that it was the handler's.
func reasonOf(err error) string {
	var r interface{ Reason() string }
	if errors.As(err, &r) {
		return r.Reason()
	}
	return ReasonHandler
}

// call runs the handler over one record. A record that was refused does not get there. A panic makes a dead letter, by recovery, the outermost
// middleware. What ends the process, no memory or a crash in C, is not caught: see Care.
func (p *preparer) call(ctx context.Context, j *prepJob, r *Record, out *Out) (err error) {
	if why := j.refused[r.Offset]; why != nil {
		if p.points != nil {
			if out.instead, err = p.points.Instead(ctx, r); err != nil {
				return err
			}
		}
		return why
	}
	return p.h.Handle(ctx, r, out)
}

// panicked is what becomes of a panic. Its value is told only where the runtime made it: another may quote the record.
func (p *preparer) panicked(v any, r *Record) *Permanent {
	says := reflect.TypeOf(v).String()
	var re runtime.Error
	if e, ok := v.(error); ok && errors.As(e, &re) {
		says = re.Error()
	}
	hash := stackHash()
	if !p.panics[hash] {
		p.panics[hash] = true // its stack is logged once
		p.log.Error("the handler panicked: the record becomes a dead letter", zap.Int32("partition", r.Partition), zap.Int64("offset", r.Offset),
			zap.String("panic", says), zap.String("stack_hash", hash), zap.ByteString("stack", debug.Stack()))
	}
	return &Permanent{Class: ClassPanic, Stage: "handle", Message: fmt.Sprintf("the handler panicked (stack %s): %s", hash, says)}
}

// stackHash is the same for the same way to the same line of the same program: 12 hexadecimal digits.
func stackHash() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs)]) // from the panic on: neither we, nor panicked, nor recovery's deferred function
	h := sha256.New()
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, ".(*preparer).call") || !more {
			return hex.EncodeToString(h.Sum(nil)[:6])
		}
		fmt.Fprintf(h, "%s %s:%d\n", f.Function, filepath.Base(f.File), f.Line)
	}
}

// refuse remembers records that the store refused: when they come again they become dead letters. The map may be in use beside.
func (s *slot) refuse(offset int64, why *Permanent) {
	m := maps.Clone(s.refused)
	if m == nil {
		m = map[int64]*Permanent{}
	}
	m[offset] = why
	s.refused = m
}

// forget drops what is behind.
func (s *slot) forget(next int64) {
	m := maps.Clone(s.refused)
	maps.DeleteFunc(m, func(o int64, _ *Permanent) bool { return o < next })
	s.refused = m
}

// refusedRows takes what a capture says of single records. Its transaction is undone; the partitions are claimed again and go on with the dead
// letters in their places.
func (w *Worker) refusedRows(e *RefusedError) {
	for _, r := range e.Records {
		if s := w.parts[r.Partition]; s != nil {
			s.refuse(r.Offset, r.Why)
			w.log.Warn("Postgres refuses a record's rows: it becomes a dead letter", zap.Int32("partition", r.Partition), zap.Int64("offset", r.Offset),
				zap.String("why", r.Why.Message))
		}
	}
}
