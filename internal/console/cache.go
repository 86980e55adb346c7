package console

import (
	"sync"
	"time"
)

// shared is one answer for all who ask within a while: a view costs the stores the same however many look at it.
type shared[T any] struct {
	mu   sync.Mutex
	kept map[string]kept[T]
}

type kept[T any] struct {
	at   time.Time
	what T
}

const mostKept = 32

// get is the answer under a name, made anew if it is older than age. Errors are not kept.
func (s *shared[T]) get(name string, age time.Duration, fresh func() (T, error)) (T, error) {
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
