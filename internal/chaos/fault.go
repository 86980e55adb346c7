package chaos

import (
	"fmt"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The kinds that strike workers. Further ones are the caller's.
const (
	KillAt  Kind = "worker killed at a failpoint"
	KillAny Kind = "worker killed at random"
	Zombie  Kind = "worker frozen, then woken up"
	Term    Kind = "worker asked to stop"
	Memory  Kind = "worker out of memory"
	Twin    Kind = "second worker with the same id"
	Storm   Kind = "workers join and leave every second"
	Grow    Kind = "input given more partitions"
)

// Fault is one fault of a schedule and what became of it.
type Fault struct {
	N      int           `json:"n"`
	Lane   string        `json:"lane"` // faults of one lane come one after the other, lanes run side by side
	Kind   Kind          `json:"kind"`
	Worker string        `json:"worker,omitempty"`
	Point  string        `json:"point,omitempty"`  // of workers: the failpoint; empty: a random moment
	Client string        `json:"client,omitempty"` // the Kafka client the worker has after it
	Detail string        `json:"detail,omitempty"` // what the kind needs to know
	AtOnce bool          `json:"restarted_at_once,omitempty"`
	Calm   bool          `json:"calm,omitempty"` // other lanes begin after it
	After  time.Duration `json:"-"`              // waited before it
	For    time.Duration `json:"-"`              // how long it lasts

	Confirmed   string   `json:"confirmed"` // how it is known that it struck; empty: it did not
	AtMs        int64    `json:"at_ms"`     // all since the run began
	HealedMs    int64    `json:"healed_ms"`
	TakeoverMs  int64    `json:"takeover_ms"`  // from the strike until each partition the worker had was claimed anew; 0: it had none, or does not apply
	TookMs      int64    `json:"recovered_ms"` // from the strike until what was owed is published and every partition with work goes on
	Captured    int64    `json:"captured"`     // clicks captured between the strike and the recovery
	Published   int64    `json:"published"`
	Partitions  int      `json:"partitions,omitempty"` // the worker had
	Beside      []string `json:"beside,omitempty"`     // what else was broken then
	SIGKILLs    int      `json:"sigkills,omitempty"`   // of workers
	Recovered   bool     `json:"recovered"`
	Failed      string   `json:"failed,omitempty"`
	Standstill  bool     `json:"standstill,omitempty"` // nothing can go on before it is over
	WroteNobody bool     `json:"zombie_wrote_nothing,omitempty"`

	at     time.Time
	before State
	healed State // when it was over
	span   int
	had    map[int32]Position // what the worker had when it was struck
}

// Planned says what is to happen, and to whom.
func (f *Fault) Planned() string { return fmt.Sprintf("%-10s %s", f.Lane, f.plan()) }

func (f *Fault) plan() string {
	s := string(f.Kind)
	for _, part := range []string{f.Worker, f.Point, f.Detail} {
		if part != "" {
			s += ", " + part
		}
	}
	if f.Client != "" {
		s += ", " + f.Client
	}
	return s
}

func (f *Fault) outcome() string {
	if f.Failed != "" {
		return "FAILED: " + f.Failed
	}
	s := fmt.Sprintf("recovered in %.1f s, %d clicks captured meanwhile", float64(f.TookMs)/1000, f.Captured)
	if f.TakeoverMs > 0 {
		s = fmt.Sprintf("taken over in %.1f s, ", float64(f.TakeoverMs)/1000) + s
	}
	return s + " (" + f.Confirmed + ")"
}

func (f *Fault) fail(format string, a ...any) {
	if f.Failed == "" {
		f.Failed = fmt.Sprintf(format, a...)
	}
}

// Lasts is how long the fault is to last.
func (f *Fault) Lasts() time.Duration { return f.For }
