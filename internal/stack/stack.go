// Package stack owns the embedded stack: a Kafka broker, a schema registry and a Postgres server for development, demos and
// tests, all below one directory.
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
)

// Options are what a stack can be told. The zero value of all but Dir is the durable stack.
type Options struct {
	Dir             string        // where everything is kept; created if absent
	NoSyncKafka     bool          // leave the broker's writes to the page cache: they survive SIGKILL, not a power failure
	NoSyncPostgres  bool          // fsync and full_page_writes off: survives SIGKILL, not a power failure
	GroupMinSession time.Duration // shortest session timeout a group member may ask for; 0: 1s
	PostgresBin     string        // folder with initdb and postgres; empty: found on this machine, else fetched
	Log             *zap.Logger   // nil: silent
}

// Stack is one running stack.
type Stack struct {
	opt      Options
	state    *state
	lock     *os.File
	kafka    *kafka
	registry *registry
	postgres *postgres

	createMu sync.Mutex // CREATE DATABASE copies template1, which two at once may not

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
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("start stack: %w", err)
	}
	if err = os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("start stack: %w", err)
	}
	if o.Dir, err = filepath.EvalSymlinks(o.Dir); err != nil { // the folders above are looked at: the real ones
		return nil, fmt.Errorf("start stack: %w", err)
	}
	s := &Stack{opt: o}
	if s.lock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.Stop() // the start's error is the one that matters
		}
	}()
	if s.state, err = loadState(o.Dir); err != nil {
		return nil, err
	}
	if s.kafka, err = startKafka(o, s.state); err != nil {
		return nil, fmt.Errorf("start kafka broker in %s: %w", o.Dir, err)
	}
	if s.registry, err = startRegistry(o, s.state); err != nil {
		return nil, fmt.Errorf("start schema registry in %s: %w", o.Dir, err)
	}
	if s.postgres, err = startPostgres(ctx, o, s.state); err != nil {
		return nil, fmt.Errorf("start postgres in %s: %w", o.Dir, err)
	}
	if err = s.state.save(); err != nil { // the ports, for the next start
		return nil, err
	}
	return s, nil
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
		if s.postgres != nil {
			errs = append(errs, s.postgres.stop())
		}
		// Last: the lock says that nothing of this stack writes below the directory any more.
		errs = append(errs, s.lock.Close())
		if err := errors.Join(errs...); err != nil {
			s.stopErr = fmt.Errorf("stop stack in %s: %w", s.opt.Dir, err)
		}
	})
	return s.stopErr
}

// Env is the settings that point a command at this stack. The DSN holds a password: write it to a file, never to a log.
func (s *Stack) Env() map[string]string {
	return map[string]string{
		"EXACTLY_KAFKA_BROKERS": s.Brokers(),
		"EXACTLY_POSTGRES_DSN":  s.DSN(),
		"EXACTLY_REGISTRY_URL":  s.RegistryURL(),
	}
}

// Brokers is the broker's host:port.
func (s *Stack) Brokers() string { return loopback(s.state.KafkaPort) }

// RegistryURL is the schema registry's base address.
func (s *Stack) RegistryURL() string { return "http://" + loopback(s.state.RegistryPort) }

// DSN is the address of the database `exactly`, with its password.
func (s *Stack) DSN() string { return s.postgres.dsn(database) }

// PostgresPID is the process id of the Postgres server, for tests that kill it.
func (s *Stack) PostgresPID() int { return s.postgres.cmd.Process.Pid }

// Failed is closed when Postgres has ended without Stop; Err then says how.
func (s *Stack) Failed() <-chan struct{} { return s.postgres.exited }

// Err is why Failed is closed, nil before.
func (s *Stack) Err() error { return s.postgres.err() }
