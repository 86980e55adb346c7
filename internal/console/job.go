package console

import (
	"context"
	"sync"
	"time"

	"github.com/exactly-pipeline/exactly/internal/console/guard"
)

// job is something that takes longer than a page: it goes on though nobody looks, one of each kind at a time.
type job struct {
	By    string
	Begun time.Time

	mu    sync.Mutex
	stage string
	share float64
	left  time.Duration
	ended time.Time
	err   error
	what  any // its result
}

// jobs are the newest of each kind.
type jobs struct {
	mu    sync.Mutex
	kinds map[string]*job
	ctx   context.Context // ends with the console
}

// start begins a job, unless one of the kind is under way: then it is that one, and false.
func (j *jobs) start(kind string, by guard.Person, atMost time.Duration, do func(context.Context, *job) (any, error)) (*job, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if was := j.kinds[kind]; was != nil && !was.over() {
		return was, false
	}
	n := &job{By: by.Name, Begun: time.Now()}
	j.kinds[kind] = n
	go func() {
		ctx, cancel := context.WithTimeout(j.ctx, atMost)
		defer cancel()
		what, err := do(ctx, n)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.what, n.err, n.ended = what, err, time.Now()
	}()
	return n, true
}

// newest is the newest job of a kind; nil: there was none.
func (j *jobs) newest(kind string) *job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.kinds[kind]
}

func (j *job) over() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.ended.IsZero()
}

func (j *job) tell(stage string, share float64, left time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stage, j.share, j.left = stage, share, left
}

// jobView is a job for a template.
type jobView struct {
	By      string
	Begun   time.Time
	Running bool
	Took    time.Duration
	Stage   string
	Share   float64
	Left    time.Duration
	Err     string
	What    any
}

func (j *job) view() *jobView {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	v := &jobView{By: j.By, Begun: j.Begun, Running: j.ended.IsZero(), Stage: j.stage, Share: j.share, Left: j.left, What: j.what}
	v.Took = time.Since(j.Begun)
	if !v.Running {
		v.Took = j.ended.Sub(j.Begun)
	}
	if j.err != nil {
		v.Err = j.err.Error()
	}
	return v
}
