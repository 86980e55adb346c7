package doctor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/confluent"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/schema"
)

// storeTimeout bounds the look at each store.
const storeTimeout = 30 * time.Second

// gatherer collects the facts; the stores are looked at side by side.
type gatherer struct {
	c   *config.Config
	log *zap.Logger
	mu  sync.Mutex
	f   *Facts
}

// unknown notes a part that can't be known.
func (g *gatherer) unknown(p Part, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.f.Unknown[p] = err.Error()
}

func gather(ctx context.Context, c *config.Config, o Options) (*Facts, error) {
	log := o.Log
	if log == nil {
		log = zap.NewNop()
	}
	g := &gatherer{c: c, log: log, f: &Facts{
		Settings: *c, Misspelt: config.UnknownEnv(o.Environ), Librdkafka: confluent.Version(), Geo: geo(c), Now: time.Now(),
		Topics: map[string]*Topic{}, Internal: map[string]*Topic{}, Subjects: map[string]*schema.Subject{}, Unknown: map[Part]string{},
	}}
	var wg sync.WaitGroup
	for store, look := range map[Part]func(context.Context) error{Kafka: g.kafka, Registry: g.registry, Postgres: g.postgres} {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, storeTimeout)
			defer cancel()
			if err := look(ctx); err != nil {
				g.unknown(store, err)
			}
		})
	}
	wg.Wait()
	return g.f, context.Cause(ctx)
}

func geo(c *config.Config) GeoFacts {
	f := GeoFacts{Path: c.Geo.Database}
	db, err := clicks.OpenGeo(f.Path)
	if err != nil {
		f.Err = err.Error()
		return f
	}
	f.Built = db.Built()
	return f
}

func (g *gatherer) registry(ctx context.Context) error {
	reg, err := provision.Registry(g.c)
	if err != nil {
		return err
	}
	defer reg.Close()
	for _, s := range provision.Subjects(g.c) {
		is, err := provision.Examine(ctx, reg, s)
		if err != nil {
			return unwrapped(err)
		}
		g.f.Subjects[s.Name] = is
	}
	return nil
}

// unwrapped keeps what was being done and the innermost reason.
func unwrapped(err error) error {
	var t *schema.TransientError
	if errors.As(err, &t) {
		return fmt.Errorf("%s: %w", t.Op, t.Err)
	}
	return err
}
