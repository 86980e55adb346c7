package console

import (
	"context"
	"sync"
	"time"
)

// lately is one answer for all who ask within a while: a view costs the stores the same however many look at it.
type lately[T any] struct {
	mu   sync.Mutex
	kept map[string]kept[T]

	busy   chan struct{} // of soon: closed when what is under way is over
	err    error
	failed time.Time
}

type kept[T any] struct {
	at   time.Time
	what T
}

const mostKept = 32

// soon is the answer under a name as it was last given, and begins to make it anew if it is older than age. It waits for that, up to patience, only
// where there is none yet. The error is that of the last try.
func (s *lately[T]) soon(name string, age, patience time.Duration, fresh func(context.Context) (T, error)) (T, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = map[string]kept[T]{}
	}
	k, ok := s.kept[name]
	if s.busy == nil && (!ok && time.Since(s.failed) > age || ok && time.Since(k.at) > age) {
		s.busy = make(chan struct{})
		go func(done chan struct{}) {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			what, err := fresh(ctx)
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.busy, s.err = nil, err; err == nil {
				s.kept[name] = kept[T]{time.Now(), what}
			} else {
				s.failed = time.Now()
			}
			close(done)
		}(s.busy)
	}
	if busy := s.busy; !ok && busy != nil {
		s.mu.Unlock()
		select {
		case <-busy:
		case <-time.After(patience):
		}
		s.mu.Lock()
		k, ok = s.kept[name]
	}
	return k.what, ok, s.err
}

// get is the answer under a name, made anew if it is older than age. Errors are not kept.
func (s *lately[T]) get(name string, age time.Duration, fresh func() (T, error)) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.kept[name]; ok && time.Since(k.at) < age {
		return k.what, nil
	}
	what, err := fresh()
	if err != nil {
		return what, err
	}
	if s.kept == nil || len(s.kept) >= mostKept {
		s.kept = map[string]kept[T]{}
	}
	s.kept[name] = kept[T]{time.Now(), what}
	return what, nil
}
