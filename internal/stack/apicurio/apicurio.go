// Package apicurio owns Apicurio Registry: a schema registry with Confluent's API, as a process of its own.
//
// It promises that it listens on loopback only, on the same port after every start where that is still free, that what was registered is
// there again under the same ids, and that it does not outlive this process. It never registers anything.
package apicurio

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/exactly-pipeline/exactly/internal/stack/child"
	"github.com/exactly-pipeline/exactly/internal/stack/jvm"
)

const (
	pollInterval = 100 * time.Millisecond
	stopTimeout  = 10 * time.Second

	archiveTimeout = 90 * time.Second // of a registry that writes an archive when it ends
)

// Options are what a registry can be told.
type Options struct {
	JVM []string // further arguments of its JVM: -Dquarkus.http.…, -Dapicurio.…; the last of a name wins
	Env []string // further NAME=value of its environment

	Archive string // JVM argument that has its JVM write an archive of its classes when it ends, which takes it a while; jvm.Programs.Archive

	Dir  string // where everything is kept; there already
	Port *int   // that of the last start, kept if still free; changed to the present one
}

// Registry is a running registry. Its methods may be called from several goroutines.
type Registry struct {
	opt      Options
	programs *jvm.Programs
	dir, log string
	failed   func(error)

	mu   sync.Mutex // one start or end at a time
	proc *child.Process
}

// Start starts the registry and returns when it answers. failed is told if it ends by itself later on. ctx bounds the start only.
func Start(ctx context.Context, programs *jvm.Programs, o Options, failed func(error)) (*Registry, error) {
	port, err := child.FreePort(*o.Port)
	if err != nil {
		return nil, err
	}
	*o.Port = port
	dir := filepath.Join(o.Dir, "registry")
	r := &Registry{opt: o, programs: programs, dir: dir, log: filepath.Join(dir, "registry.log"), failed: failed}
	if err := r.Start(ctx); err != nil {
		r.Kill()
		return nil, err
	}
	return r, nil
}

// Start starts a registry that was killed or stopped, on the same port and data, and returns when it answers.
func (r *Registry) Start(ctx context.Context) error {
	if err := r.launch(ctx); err != nil {
		return fmt.Errorf("start the schema registry: %w", err)
	}
	p := r.process()
	for {
		err := r.ping(ctx)
		if err == nil {
			return nil
		}
		t := time.NewTimer(pollInterval)
		select {
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("wait for the schema registry: %w%s", errors.Join(ctx.Err(), err), p.Tail())
		case <-p.Exited():
			t.Stop()
			return fmt.Errorf("wait for the schema registry: it ended: %v%s", p.Result(), p.Tail())
		case <-t.C:
		}
	}
}

func (r *Registry) launch(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proc != nil && r.proc.Running() {
		return errors.New("it runs")
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	pidFile := filepath.Join(r.dir, "pid")
	if _, err := child.AwaitPredecessor(ctx, pidFile, r.dir, syscall.SIGKILL); err != nil {
		return err
	}
	arguments := r.opt.JVM
	if r.opt.Archive != "" {
		arguments = append(slices.Clone(arguments), r.opt.Archive)
	}
	cmd, err := r.programs.Registry(append([]string{
		"-Xmx256m", "-Dquarkus.http.host=127.0.0.1", "-Dquarkus.http.port=" + strconv.Itoa(*r.opt.Port), "-Dquarkus.http.access-log.enabled=false",
		"-Dapicurio.storage.kind=sql", "-Dapicurio.storage.sql.kind=h2", "-Dapicurio.datasource.url=jdbc:h2:file:" + filepath.Join(r.dir, "h2"),
		"-Dapicurio.datasource.jdbc.initial-size=2", "-Dapicurio.datasource.jdbc.min-size=2", "-Dapicurio.datasource.jdbc.max-size=10",
	}, arguments...))
	if err != nil {
		return err
	}
	cmd.Dir = r.dir
	cmd.Env = append(cmd.Env, r.opt.Env...)
	if r.proc, err = child.Start(cmd, r.log, syscall.SIGKILL); err != nil {
		return err
	}
	r.proc.OnFailure(func(err error) { r.failed(fmt.Errorf("schema registry: %w", err)) })
	return os.WriteFile(pidFile, []byte(strconv.Itoa(r.proc.PID())+"\n"), 0o600)
}

// ping asks for what every client of Confluent's API asks for.
func (r *Registry) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL()+"/subjects", nil)
	if err != nil {
		return err
	}
	tr := &http.Transport{} // of its own: no connection is left open to a process that may be killed
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the schema registry answers %s", res.Status)
	}
	return nil
}

// URL is the base address of Confluent's API.
func (r *Registry) URL() string { return "http://" + child.Loopback(*r.opt.Port) + "/apis/ccompat/v7" }

func (r *Registry) process() *child.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proc
}

// Kill ends the registry with SIGKILL and returns when it is gone.
func (r *Registry) Kill() {
	if p := r.process(); p != nil {
		p.Kill()
	}
}

// Stop ends the registry and returns when it is gone.
func (r *Registry) Stop() error {
	grace := stopTimeout
	if r.opt.Archive != "" {
		grace = archiveTimeout
	}
	if p := r.process(); p != nil && !p.Stop(grace, syscall.SIGTERM) {
		return fmt.Errorf("the schema registry did not stop within %v and was killed", grace)
	}
	return nil
}
