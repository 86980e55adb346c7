package apache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/stack/child"
	"github.com/exactly-pipeline/exactly/internal/stack/jvm"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

const (
	stopTimeout       = 20 * time.Second // of a broker that can hand over
	archiveTimeout    = 90 * time.Second // of one that writes an archive after that
	quorumLostTimeout = 2 * time.Second  // of one that has nobody to hand over to
	reviveAfter       = 5 * time.Second  // so that the others have noticed that it is gone
)

// Broker is one broker of a cluster. Its methods may be called from several goroutines.
type Broker struct {
	opt      *Options
	programs *jvm.Programs
	id       int
	dir      string
	log      string // what it writes
	failed   func(error)

	mu     sync.Mutex // one start or end at a time
	proc   *child.Process
	closed bool // the cluster ends: nothing is started any more
}

func newBroker(o *Options, programs *jvm.Programs, id int, failed func(error)) *Broker {
	dir := filepath.Join(o.Dir, "broker-"+strconv.Itoa(id))
	return &Broker{opt: o, programs: programs, id: id, dir: dir, log: filepath.Join(dir, "broker.log"), failed: failed}
}

// ID is the broker's node.id.
func (b *Broker) ID() int { return b.id }

// Addr is host:port of the listener of that name.
func (b *Broker) Addr(listener string) string {
	for _, l := range b.opt.Listeners {
		if l.Name == listener && l.Host != "" {
			return fmt.Sprintf("%s:%d", l.Host, (*b.opt.Ports)[b.id][listener])
		}
	}
	return child.Loopback((*b.opt.Ports)[b.id][listener])
}

// LogFile is what the broker writes.
func (b *Broker) LogFile() string { return b.log }

// launch starts the process, formatting its storage first if this is its first start. It does not wait until the broker is ready.
func (b *Broker) launch(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errors.New("the cluster has ended")
	}
	if b.proc != nil && b.proc.Running() {
		return fmt.Errorf("kafka broker %d runs", b.id)
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	pidFile := filepath.Join(b.dir, "pid")
	if _, err := child.AwaitPredecessor(ctx, pidFile, b.dir, syscall.SIGKILL); err != nil {
		return err
	}
	properties, err := render(b.opt.properties(b.id, filepath.Join(b.dir, "data")))
	if err != nil {
		return err
	}
	file := filepath.Join(b.dir, "server.properties")
	if err := os.WriteFile(file, []byte(properties), 0o600); err != nil { // it may hold passwords
		return err
	}
	if err := b.format(ctx, file); err != nil {
		return fmt.Errorf("format the storage of broker %d: %w", b.id, err)
	}
	arguments := b.opt.JVM
	if b.opt.Archive != "" {
		arguments = append(slices.Clone(arguments), b.opt.Archive)
	}
	cmd := b.programs.Kafka(append([]string{
		"-Xmx512m", "-Xms128m", "-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=info", "-Dorg.slf4j.simpleLogger.levelInBrackets=true",
	}, arguments...), "kafka.Kafka", file)
	b.proc, err = b.start(cmd)
	if err != nil {
		return err
	}
	b.proc.OnFailure(b.ended)
	return os.WriteFile(pidFile, []byte(strconv.Itoa(b.proc.PID())+"\n"), 0o600)
}

// ended deals with a broker that nobody here has ended.
func (b *Broker) ended(err error) {
	err = fmt.Errorf("kafka broker %d: %w", b.id, err)
	if !b.opt.Revive || b.opt.Brokers == 1 {
		b.failed(err)
		return
	}
	b.opt.Log.Warn("a broker ended; it is started again", zap.Duration("in", reviveAfter), zap.Error(err))
	time.AfterFunc(reviveAfter, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := b.launch(ctx); err != nil {
			b.opt.Log.Warn("the broker was not started again", zap.Int("broker", b.id), zap.Error(err))
		}
	})
}

// close has the broker never started again.
func (b *Broker) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

func (b *Broker) start(cmd *exec.Cmd) (*child.Process, error) {
	cmd.Dir = b.dir
	cmd.Env = append(cmd.Env, b.opt.Env...)
	return child.Start(cmd, b.log, syscall.SIGKILL)
}

// Start starts a broker that was killed or stopped, on the same ports and data, and returns when it serves clients. It may still be
// catching up: see Cluster.AwaitInSync.
func (b *Broker) Start(ctx context.Context) error {
	if err := b.launch(ctx); err != nil {
		return fmt.Errorf("start kafka broker %d: %w", b.id, err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr(Plaintext)), kgo.RetryBackoffFn(func(int) time.Duration { return pollInterval }))
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		once, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := cl.Ping(once)
		cancel()
		if err == nil {
			return nil
		}
		if ended := b.Err(); ended != nil {
			return fmt.Errorf("start kafka broker %d: %w", b.id, ended)
		}
		if wait.For(ctx, pollInterval) != nil {
			return fmt.Errorf("start kafka broker %d: %w%s", b.id, errors.Join(ctx.Err(), err), child.Tail(b.log))
		}
	}
}

func (b *Broker) process() *child.Process {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.proc
}

// PID is the process id of the last start.
func (b *Broker) PID() int { return b.process().PID() }

// Running says whether the process is there; a paused one is.
func (b *Broker) Running() bool {
	p := b.process()
	return p != nil && p.Running()
}

// Err is how the broker ended if it ended by itself, nil else.
func (b *Broker) Err() error {
	p := b.process()
	if p == nil {
		return nil
	}
	return p.Err()
}

// Kill ends the broker with SIGKILL and returns when it is gone. The others notice when its session with the controller has timed out.
func (b *Broker) Kill() {
	if p := b.process(); p != nil {
		p.Kill()
	}
}

// Stop ends the broker after it has handed over what it leads, and says how if it had to be killed in the end.
func (b *Broker) Stop() error {
	if !b.stop(stopTimeout) {
		return fmt.Errorf("kafka broker %d did not stop within %v and was killed", b.id, stopTimeout)
	}
	return nil
}

func (b *Broker) stop(grace time.Duration) bool {
	p := b.process()
	return p == nil || p.Stop(grace, syscall.SIGTERM)
}

// Pause freezes the broker (SIGSTOP): its connections stay, and nothing answers.
func (b *Broker) Pause() { b.process().Pause() }

// Resume wakes a paused broker.
func (b *Broker) Resume() { b.process().Resume() }
