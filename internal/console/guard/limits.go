package guard

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How much anybody may ask.
const (
	perSecond  = 60  // requests of one address
	burst      = 150 // a page, its parts, and some impatience
	tryEvery   = 2 * time.Second
	tryBurst   = 5
	atOnce     = 32   // requests of all under way
	maxKnown   = 4096 // addresses remembered
	forgetIdle = time.Minute
)

// limits are token buckets, one an address, and a bound on what is under way.
type limits struct {
	now    func() time.Time
	inside chan struct{}

	mu   sync.Mutex
	asks map[string]*asker
}

type asker struct {
	requests, logins *rate.Limiter
	seen             time.Time
}

func newLimits(now func() time.Time) *limits {
	return &limits{now: now, inside: make(chan struct{}, atOnce), asks: map[string]*asker{}}
}

func (l *limits) asker(address string) *asker {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	a := l.asks[address]
	if a == nil {
		if len(l.asks) >= maxKnown {
			for k, v := range l.asks {
				if now.Sub(v.seen) > forgetIdle {
					delete(l.asks, k)
				}
			}
		}
		if len(l.asks) >= maxKnown { // more addresses than anybody has people: they share
			address = ""
			a = l.asks[address]
		}
		if a == nil {
			a = &asker{requests: rate.NewLimiter(perSecond, burst), logins: rate.NewLimiter(rate.Every(tryEvery), tryBurst)}
			l.asks[address] = a
		}
	}
	a.seen = now
	return a
}

// enter counts a request of an address; false: it is one too many. done must be called when it was answered.
func (l *limits) enter(address string) (done func(), ok bool) {
	if !l.asker(address).requests.AllowN(l.now(), 1) {
		return nil, false
	}
	select {
	case l.inside <- struct{}{}:
		return func() { <-l.inside }, true
	default:
		return nil, false
	}
}

// tries counts a try to log in.
func (l *limits) tries(address string) bool { return l.asker(address).logins.AllowN(l.now(), 1) }
