package engine

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// chunk is what one poll brought, and the partitions that were set to their offset before it. Chunks keep their order, so records
// fetched before a seek can't be taken for those after it.
type chunk struct {
	sought  []soughtMark
	records []Record
}

type soughtMark struct {
	partition int32
	life      uint64
}

type command struct {
	partition int32
	kind      commandKind
	offset    int64
	life      uint64
	tries     int
}

type commandKind int

const (
	cmdPause commandKind = iota // it is given up
	cmdSeek                     // and read on from there
	cmdFull                     // enough of it is buffered: fetch the others
	cmdRoom                     // go on fetching it
)

// seekTries bounds how often a seek is tried, once a poll: just after an assignment the client may not have started the partition yet.
const seekTries = 100

const (
	pollRecords = 4096
	pollWait    = 10 * time.Millisecond
	stallPause  = 200 * time.Millisecond // behind stages stalled this long: pause fetching rather than hold back the poll
)

// poller is the one goroutine that talks to the source. It polls on whatever happens behind it, so that the group sees it alive and
// rebalances are answered.
type poller struct {
	src    Source
	w      *Worker
	chunks chan chunk

	mu       sync.Mutex
	commands []command
	closed   bool

	active    map[int32]bool
	full      map[int32]bool // those of which enough is buffered
	throttled bool
	pending   []chunk
	stalled   time.Time
	buf       []Record
	said      string
	polled    atomic.Int64 // when the source was polled last, ns since the Unix epoch
}

func newPoller(src Source, w *Worker) *poller {
	p := &poller{src: src, w: w, chunks: make(chan chunk), active: map[int32]bool{}, full: map[int32]bool{}}
	p.polled.Store(time.Now().UnixNano())
	return p
}

func (p *poller) command(c command) {
	p.mu.Lock()
	p.commands = append(p.commands, c)
	p.mu.Unlock()
}

func (p *poller) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
}

// run polls until it is closed, or the source ends the membership.
func (p *poller) run() error {
	for {
		sought, closed := p.obey()
		if closed {
			return p.src.Close()
		}
		buf, err := p.src.Poll(p.buf, pollRecords, pollWait)
		p.polled.Store(time.Now().UnixNano())
		if err != nil {
			if fatal := p.trouble(err); fatal != nil {
				return fatal // the source is left to be closed: that may take long
			}
		}
		if len(buf) > 0 || len(sought) > 0 {
			p.pending = append(p.pending, chunk{sought, buf})
			p.buf = getRecords()
		}
		p.deliver()
	}
}

// deliver hands over what is pending. While the worker is full, it waits a little, then pauses fetching: pausing throws away what
// the client has prefetched, so it is not done for every hiccup.
func (p *poller) deliver() {
	for len(p.pending) > 0 {
		t := time.NewTimer(pollWait)
		select {
		case p.chunks <- p.pending[0]:
			t.Stop()
			p.pending = p.pending[1:]
			p.stalled = time.Time{}
			continue
		case <-t.C:
		}
		if p.stalled.IsZero() {
			p.stalled = time.Now()
		}
		if !p.throttled && time.Since(p.stalled) > stallPause {
			p.throttled = true
			p.each(p.src.Pause)
		}
		if p.throttled || p.isClosed() {
			return // poll on with nothing to fetch
		}
	}
	if p.throttled {
		p.throttled = false
		p.each(p.src.Resume)
	}
}

func (p *poller) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *poller) each(f func([]int32) error) {
	parts := make([]int32, 0, len(p.active))
	for id := range p.active {
		if !p.full[id] { // paused already, and to stay so
			parts = append(parts, id)
		}
	}
	if len(parts) > 0 {
		_ = f(parts) // a partition taken away meanwhile is no error
	}
}

func (p *poller) obey() ([]soughtMark, bool) {
	p.mu.Lock()
	cmds, closed := p.commands, p.closed
	p.commands = nil
	p.mu.Unlock()
	var sought []soughtMark
	for _, c := range cmds {
		switch one := []int32{c.partition}; c.kind {
		case cmdPause:
			delete(p.active, c.partition)
			delete(p.full, c.partition)
			_ = p.src.Pause(one) // taken away meanwhile: nothing to pause
			continue
		case cmdFull:
			if p.active[c.partition] {
				p.full[c.partition] = true
				_ = p.src.Pause(one)
			}
			continue
		case cmdRoom:
			if p.full[c.partition] {
				delete(p.full, c.partition)
				if !p.throttled {
					_ = p.src.Resume(one)
				}
			}
			continue
		case cmdSeek:
			delete(p.full, c.partition)
		}
		if err := p.src.Seek(c.partition, c.offset); err != nil {
			if c.tries++; c.tries < seekTries {
				p.command(c)
			} else {
				p.w.send(evFailed{c.partition, c.life, ReasonKafka, err})
			}
			continue
		}
		p.active[c.partition] = true
		if p.throttled {
			_ = p.src.Pause([]int32{c.partition})
		}
		sought = append(sought, soughtMark{c.partition, c.life})
	}
	return sought, closed
}

// trouble sorts the source's errors and returns those that end the membership.
func (p *poller) trouble(err error) error {
	var pe *PartitionError
	var fatal *FatalError
	switch {
	case errors.As(err, &fatal):
		return err
	case errors.As(err, &pe):
		e := evSourceError{pe.Partition, pe.Err, make(chan struct{})}
		p.w.send(e)
		p.w.await(e.done) // so that the pause it leads to comes before the next poll
	default:
		if s := err.Error(); s != p.said { // the client tries on by itself; say it once
			p.said = s
			p.w.log.Warn("consumer", zap.Error(err))
		}
	}
	return nil
}
