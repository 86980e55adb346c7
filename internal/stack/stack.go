// Package stack owns the stacks to develop and test on: a Kafka broker or several, a schema registry and a Postgres server, all below one
// directory. There are two kinds. The embedded one is in this process, but for Postgres, and needs nothing installed; the real one is
// Apache Kafka and Apicurio Registry, as processes of their own.
//
// It promises that what was acknowledged is there after every start on the same directory, also after SIGKILL, under the same
// cluster id, topic ids, schema ids and offsets and, where still free, on the same ports; that a transaction is whole or absent;
// and that nothing keeps running once the process is gone. It never listens beyond loopback, never creates a topic by itself,
// never shares its directory with a second stack, and is not meant for data that anybody would miss.
package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/exactly-pipeline/exactly/internal/stack/apache"
	"github.com/exactly-pipeline/exactly/internal/stack/apicurio"
	"github.com/exactly-pipeline/exactly/internal/stack/jvm"
)

// Kind is a kind of stack. Postgres is the same in all.
type Kind string

// The kinds.
const (
	Embedded Kind = "embedded" // one broker and the registry in this process
	Kafka    Kind = "kafka"    // Apache Kafka and Apicurio Registry: they need Java 17 or newer and, for the first start on a machine, Maven
)

// Parts are parts of a stack.
type Parts uint8

// The parts.
const (
	Broker Parts = 1 << iota // Kafka, one broker or several
	Registry
	Postgres
	All = Broker | Registry | Postgres
)

// Options are what a stack can be told. The zero value of all but Dir is the durable embedded stack.
type Options struct {
	Dir             string           // where everything is kept; created if absent
	Kind            Kind             // empty: Embedded
	Only            Parts            // what to start; 0: All. The methods of what is left out must not be called
	Beside          *Beside          // a broker and a registry that run already, to be used instead of ones of our own; nil: none
	NoSyncKafka     bool             // leave the embedded broker's writes to the page cache, as Apache Kafka always does: they survive SIGKILL, not a power failure
	NoSyncPostgres  bool             // fsync and full_page_writes off: survives SIGKILL, not a power failure
	GroupMinSession time.Duration    // shortest session timeout a group member may ask for; 0: 1s
	PostgresBin     string           // folder with initdb and postgres; empty: found on this machine, else fetched
	Apache          apache.Options   // of kind Kafka: how many brokers, further properties and listeners. Dir, ClusterID, Ports and Log are ours
	Apicurio        apicurio.Options // of kind Kafka: JVM and Env. Dir and Port are ours
	Log             *zap.Logger      // nil: silent
}

// Beside is a broker and a registry of another stack. Whoever uses them neither ends them nor changes what others of their users see.
type Beside struct{ Brokers, RegistryURL string }

// Stack is one running stack.
type Stack struct {
	opt      Options
	state    *state
	lock     *os.File
	kafka    *kafka             // Embedded
	registry *registry          // Embedded
	cluster  *apache.Cluster    // Kafka
	apicurio *apicurio.Registry // Kafka
	postgres *postgres

	createMu sync.Mutex // CREATE DATABASE copies template1, which two at once may not

	failOnce sync.Once
	failed   chan struct{}
	err      error // set before failed is closed

	stopOnce sync.Once
	stopErr  error
}

// ErrInUse is matched (errors.Is) when another process, or another stack of this one, has the directory open.
var ErrInUse = errors.New("in use by another stack")

// Start starts the three on o.Dir and returns when all of them answer. It fails with ErrInUse on a directory that is open elsewhere.
// ctx bounds the start only; the stack runs until Stop.
func Start(ctx context.Context, o Options) (_ *Stack, err error) {
	if o.Dir == "" {
		return nil, errors.New("start stack: no directory given")
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.GroupMinSession == 0 {
		o.GroupMinSession = time.Second
	}
	if o.Only == 0 {
		o.Only = All
	}
	if o.Kind == "" {
		o.Kind = Embedded
	}
	if o.Kind != Embedded && o.Kind != Kafka {
		return nil, fmt.Errorf("start stack: kind %q must be %s or %s", o.Kind, Embedded, Kafka)
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("start stack: %w", err)
	}
	if err = os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("start stack: %w", err)
	}
	if o.Dir, err = filepath.EvalSymlinks(o.Dir); err != nil { // the folders above are looked at: the real ones
		return nil, fmt.Errorf("start stack: %w", err)
	}
	s := &Stack{opt: o, failed: make(chan struct{})}
	if s.lock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.Stop() // the start's error is the one that matters
		}
	}()
	if s.state, err = loadState(o.Dir, o.Kind, max(1, o.Apache.Brokers)); err != nil {
		return nil, err
	}
	if err = s.start(ctx); err != nil {
		return nil, err
	}
	if err = s.state.save(); err != nil { // the ports, for the next start
		return nil, err
	}
	return s, nil
}

// start starts the parts side by side: each waits for itself most of the time.
func (s *Stack) start(ctx context.Context) error {
	var programs *jvm.Programs
	if s.opt.Kind == Kafka && s.opt.Beside == nil && s.opt.Only&(Broker|Registry) != 0 {
		var err error
		if programs, err = jvm.Find(ctx, func(what string) { s.opt.Log.Info(what) }); err != nil {
			return err
		}
		archive(ctx, programs, s.opt)
	}
	g, ctx := errgroup.WithContext(ctx)
	part := func(p Parts, what string, start func() error) {
		if s.opt.Only&p == 0 || s.opt.Beside != nil && p != Postgres {
			return
		}
		g.Go(func() error {
			if err := start(); err != nil {
				return fmt.Errorf("start %s in %s: %w", what, s.opt.Dir, err)
			}
			return nil
		})
	}
	part(Postgres, "postgres", func() (err error) {
		s.postgres, err = startPostgres(ctx, s.opt, s.state, s.fail)
		return err
	})
	if s.opt.Kind == Embedded {
		part(Broker, "kafka broker", func() (err error) {
			s.kafka, err = startKafka(s.opt, s.state)
			return err
		})
		part(Registry, "schema registry", func() (err error) {
			s.registry, err = startRegistry(s.opt, s.state)
			return err
		})
		return g.Wait()
	}
	part(Broker, "kafka", func() (err error) {
		o := s.opt.Apache
		o.Dir, o.ClusterID, o.Ports, o.Log = s.opt.Dir, s.state.ClusterID, &s.state.Ports, s.opt.Log.Named("kafka")
		s.cluster, err = apache.Start(ctx, programs, o, s.fail)
		return err
	})
	part(Registry, "schema registry", func() (err error) {
		o := s.opt.Apicurio
		o.Dir, o.Port = s.opt.Dir, &s.state.RegistryPort
		s.apicurio, err = apicurio.Start(ctx, programs, o, s.fail)
		return err
	})
	return g.Wait()
}

// fail notes the first process that ended by itself.
func (s *Stack) fail(err error) {
	s.failOnce.Do(func() {
		s.err = err
		close(s.failed)
	})
}

// Stop ends the stack in an order that loses nothing and returns when every process and listener is gone. Later calls return
// what the first returned.
func (s *Stack) Stop() error {
	s.stopOnce.Do(func() {
		var errs []error
		if s.kafka != nil {
			errs = append(errs, s.kafka.stop())
		}
		if s.registry != nil {
			errs = append(errs, s.registry.stop())
		}
		if s.cluster != nil {
			errs = append(errs, s.cluster.Stop())
		}
		if s.apicurio != nil {
			errs = append(errs, s.apicurio.Stop())
		}
		if s.postgres != nil {
			errs = append(errs, s.postgres.stop())
		}
		if s.state != nil {
			s.state.releasePorts()
		}
		// Last: the lock says that nothing of this stack writes below the directory any more.
		errs = append(errs, s.lock.Close())
		if err := errors.Join(errs...); err != nil {
			s.stopErr = fmt.Errorf("stop stack in %s: %w", s.opt.Dir, err)
		}
	})
	return s.stopErr
}
