package clicks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/exactly-pipeline/exactly/internal/security"
)

// How long clicks may wait with none acknowledged before a person is told; stallDown if librdkafka reaches no broker.
const (
	stall     = 5 * time.Second
	stallDown = 1500 * time.Millisecond
)

// maxGuesses is how often a broker must look as if it wanted TLS or SASL before that is believed: one that starts or stops may, too.
const maxGuesses = 4

// Registrar is what RegisterClick needs of a schema registry.
type Registrar interface {
	Register(ctx context.Context, subject, avsc string) (id int, created bool, err error)
}

// RegisterClick gets the id of a topic's value schema, registering it if need be. A registry that cannot be reached is waited for, and
// say told of it once; an answer, whatever it is, ends it.
func RegisterClick(ctx context.Context, r Registrar, topic, avsc string, say func(string)) (id int, err error) {
	subject := topic + "-value" // the registry's TopicNameStrategy
	err = patiently(ctx, "the schema registry", say, func() error {
		id, _, err = r.Register(ctx, subject, avsc)
		var network net.Error // a refused, reset or timed-out connection
		if err != nil && (!errors.As(err, &network) || security.Refused(err)) {
			return backoff.Permanent(err)
		}
		return err
	})
	return id, err
}

// waitForTopic waits until a broker answers for the topic. A topic that does not exist is an error, and so are brokers that refuse us.
func (p *producer) waitForTopic(ctx context.Context, probe func(context.Context) error, say func(string)) error {
	guesses := 0
	return patiently(ctx, "Kafka", say, func() error {
		if err := p.failure(); err != nil {
			return backoff.Permanent(err)
		}
		md, err := p.client.GetMetadata(&p.topic, false, 2000)
		if err != nil {
			var why *security.Error
			if probe == nil || !errors.As(probe(ctx), &why) {
				return p.retry(err)
			}
			if guesses++; why.Guess && guesses < maxGuesses {
				return why
			}
			return backoff.Permanent(why)
		}
		p.met.Store(true)
		switch t := md.Topics[p.topic]; t.Error.Code() {
		case kafka.ErrNoError:
			if len(t.Partitions) == 0 {
				return fmt.Errorf("topic %s has no partitions yet", p.topic)
			}
			return nil
		case kafka.ErrUnknownTopicOrPart, kafka.ErrUnknownTopic:
			return backoff.Permanent(fmt.Errorf("topic %s does not exist: exactly setup creates it", p.topic))
		default:
			return p.retry(t.Error)
		}
	})
}

// retry lets through what time may cure and makes everything else permanent.
func (p *producer) retry(err error) error {
	var ke kafka.Error
	if errors.As(err, &ke) {
		switch ke.Code() {
		case kafka.ErrTransport, kafka.ErrAllBrokersDown, kafka.ErrTimedOut, kafka.ErrResolve, kafka.ErrLeaderNotAvailable,
			kafka.ErrRequestTimedOut, kafka.ErrBrokerNotAvailable, kafka.ErrCoordinatorNotAvailable, kafka.ErrNetworkException:
			return err
		}
	}
	return backoff.Permanent(fmt.Errorf("look up topic %s: %w", p.topic, err))
}

// patiently calls try until it succeeds, fails for good or ctx ends, at intervals from 0.1 to 2 s; it says once that it waits, and
// that it is over.
func patiently(ctx context.Context, what string, say func(string), try func() error) error {
	said := false
	between := backoff.NewExponentialBackOff()
	between.InitialInterval, between.MaxInterval = 100*time.Millisecond, 2*time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, try() },
		backoff.WithBackOff(between), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, _ time.Duration) {
			if !said {
				say(fmt.Sprintf("waiting for %s: %v", what, err))
			}
			said = true
		}))
	if err == nil && said {
		say(what + " is there")
	}
	return err
}

// watch reports progress each second until done is closed, and says once an outage that clicks are waiting.
func (r *run) watch(done <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var w stallWatch
	last, at := int64(0), time.Now()
	for {
		select {
		case <-done:
			return
		case now := <-tick.C:
			g := r.p.progress()
			g.PerSecond = float64(g.Acknowledged-last) / now.Sub(at).Seconds()
			g.Elapsed = now.Sub(r.start)
			last, at = g.Acknowledged, now
			if text := w.look(now, g, r.p.down.Load()); text != "" {
				r.cfg.Say(text)
			}
			if r.cfg.Progress != nil {
				r.cfg.Progress(g)
			}
		}
	}
}

// stallWatch decides when an outage is worth a word: clicks wait, and either no broker can be reached or nothing was acknowledged
// for a while. What librdkafka says of single connections is not looked at: one of several brokers restarting is no outage.
type stallWatch struct {
	acked int64
	since time.Time // of the last acknowledgement, or of nothing waiting
	said  bool
}

func (w *stallWatch) look(now time.Time, g Generated, down bool) string {
	waiting := g.Clicks - g.Acknowledged - g.Failed
	if g.Acknowledged != w.acked || waiting == 0 || w.since.IsZero() {
		back := w.said && g.Acknowledged != w.acked
		w.acked, w.since = g.Acknowledged, now
		if back {
			w.said = false
			return "Kafka acknowledges again"
		}
		return ""
	}
	enough := stall
	if down { // the flag may be older than the clicks that wait: an idle connection's end sets it too
		enough = stallDown
	}
	if w.said || now.Sub(w.since) < enough {
		return ""
	}
	w.said = true
	return fmt.Sprintf("Kafka is away: %d clicks wait for it", waiting)
}
