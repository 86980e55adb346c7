package security

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/exactly-pipeline/exactly/internal/config"
)

const (
	lookEvery    = 2 * time.Second // how soon a changed password file is seen
	probeEvery   = 5 * time.Second // at the soonest: a librdkafka client that can't connect says so about once a second
	probeTimeout = 8 * time.Second
	maxDoubts    = 3 // refusals of librdkafka's that a probe does not meet
)

// Keeper keeps one librdkafka client's credentials what the files and the token endpoint say, and tells its refusals: each once.
//
// librdkafka tells a refusal, and a connection that breaks while it shows its credentials, by the same code, and others not at all: as
// brokers that are down. So a suspicion is followed by a probe with the same settings, by the client whose errors have types.
type Keeper struct {
	k      *config.Kafka
	cl     Client
	tell   func(error)
	tokens *tokens
	ctx    context.Context
	end    context.CancelFunc
	beside sync.WaitGroup

	password string // the client has it; look's own
	every    time.Duration
	probe    func(context.Context) error

	suspected atomic.Bool // something since it last worked
	mu        sync.Mutex
	stopped   bool
	asking    bool      // a probe is under way
	asked     time.Time // when the last was
	doubts    int
	told      bool
}

// Keep begins to look after a client's credentials. tell is called, on another goroutine, with a refusal, once until Works. Stop must
// come before the client's Close.
func Keep(k *config.Kafka, cl Client, tell func(error)) *Keeper {
	return keep(k, cl, tell, lookEvery, func(ctx context.Context) error { return Probe(ctx, k) })
}

func keep(k *config.Kafka, cl Client, tell func(error), every time.Duration, probe func(context.Context) error) *Keeper {
	kp := &Keeper{k: k, cl: cl, tell: tell, every: every, probe: probe, tokens: &tokens{sasl: &k.SASL}}
	kp.ctx, kp.end = context.WithCancel(context.Background())
	if s := &k.SASL; s.Mechanism != "" && s.Mechanism != config.OAuthBearer && s.PasswordFile != "" {
		kp.password, _ = s.GetPassword() // an error now is one at the next look, too
		kp.beside.Go(kp.look)
	}
	return kp
}

// Stop ends it; the client is not touched any more. It may be called twice.
func (k *Keeper) Stop() {
	k.mu.Lock()
	k.stopped = true
	k.mu.Unlock()
	k.end()
	k.beside.Wait()
}

func (k *Keeper) look() {
	t := time.NewTicker(k.every)
	defer t.Stop()
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-t.C:
			password, err := k.k.SASL.GetPassword()
			if err != nil || password == k.password {
				continue // a file that is being replaced; what comes of one that is gone, the next refusal tells
			}
			if k.cl.SetSaslCredentials(k.k.SASL.Username, password) == nil {
				k.password = password
			}
		}
	}
}

// Event takes a client's event. True: it is dealt with, or will be told; nobody else need say it.
func (k *Keeper) Event(e kafka.Event) bool {
	switch e := e.(type) {
	case kafka.OAuthBearerTokenRefresh:
		k.mu.Lock()
		defer k.mu.Unlock()
		if !k.stopped {
			k.beside.Go(k.refresh)
		}
		return true
	case kafka.Error:
		switch e.Code() {
		case kafka.ErrAuthentication, kafka.ErrSaslAuthenticationFailed, kafka.ErrSsl:
			k.suspect(e)
			return true
		case kafka.ErrAllBrokersDown:
			return k.suspect(e)
		}
	}
	return false
}

// Works says that the brokers accept us: the next refusal is told again.
func (k *Keeper) Works() {
	if !k.suspected.Load() {
		return // as ever: this is called for each record
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.suspected.Store(false)
	k.told, k.doubts = false, 0
}

// suspect has a probe find out whether e is a refusal, and returns whether one was told already.
func (k *Keeper) suspect(e kafka.Error) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.suspected.Store(true)
	if k.told || k.stopped || k.asking || time.Since(k.asked) < probeEvery {
		return k.told
	}
	k.asking = true
	k.beside.Go(func() { k.ask(e) })
	return false
}

func (k *Keeper) ask(e kafka.Error) {
	ctx, cancel := context.WithTimeout(k.ctx, probeTimeout)
	defer cancel()
	why := k.probe(ctx)
	k.mu.Lock()
	k.asking, k.asked = false, time.Now()
	if own := ExplainEvent(k.k, e); why == nil && Refused(own) {
		// One connection in many broke; or the client has certificates that were replaced since, or something is wrong that only it meets.
		if k.doubts++; e.Code() == kafka.ErrSsl || k.doubts >= maxDoubts {
			why = own
		}
	}
	news := Refused(why) && !k.told && k.ctx.Err() == nil
	k.told = k.told || news
	k.mu.Unlock()
	if news {
		k.tell(why)
	}
}

// refresh fetches a token. librdkafka asks again in ten seconds after a failure, and tells it as an error of its own.
func (k *Keeper) refresh() {
	tok, err := k.tokens.get(k.ctx)
	if err == nil {
		err = k.cl.SetOAuthBearerToken(kafka.OAuthBearerToken{TokenValue: tok.AccessToken, Expiration: tok.Expiry, Principal: k.k.SASL.ClientID})
	}
	if err != nil && k.ctx.Err() == nil {
		_ = k.cl.SetOAuthBearerTokenFailure(err.Error())
	}
}
