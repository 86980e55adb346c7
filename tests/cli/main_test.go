// Package cli drives the program that was built, as people and scripts do: what it prints where, its exit codes, what a dry run leaves as it was,
// and what its errors say to do.
package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// shared is the program and a stack. Each test has its own database, topics and group.
var shared teststack.Package

func TestMain(m *testing.M) { os.Exit(shared.Run(m, teststack.Join)) }

var worlds atomic.Int64

// shell is one test's environment to run the program in.
type shell struct {
	t   *testing.T
	ctx context.Context
	env map[string]string
	dir string
}

// plain is a shell without any store.
func plain(t *testing.T) *shell {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return &shell{t: t, ctx: ctx, dir: t.TempDir(), env: map[string]string{"EXACTLY_HTTP_ADDR": ""}}
}

// onStack is a shell whose settings point to the stack, where nothing is set up yet.
func onStack(t *testing.T) *shell {
	t.Helper()
	s := plain(t)
	name := "cli_" + regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "_") + fmt.Sprint("_", worlds.Add(1))
	dsn, err := shared.Stack.NewDatabase(s.ctx, name)
	require.NoError(t, err)
	for k, v := range shared.Stack.Env() {
		s.env[k] = v
	}
	for k, v := range map[string]string{
		"EXACTLY_POSTGRES_DSN": dsn, "EXACTLY_GROUP": name, "EXACTLY_WORKER_ID": "w", "EXACTLY_TOPICS_INPUT": name + ".in", "EXACTLY_TOPICS_OUTPUT": name + ".out",
		"EXACTLY_TOPICS_DLQ": name + ".dlq", "EXACTLY_TOPICS_REPLAY": name + ".replay", "EXACTLY_LEDGER_HEADS_TOPIC": name + ".heads", "EXACTLY_TOPICS_PARTITIONS": "2",
		"EXACTLY_KAFKA_SESSION_TIMEOUT": "3s", "EXACTLY_KAFKA_STABLE_TIMEOUT": "500ms", "EXACTLY_POSTGRES_LOCK_TIMEOUT": "1s",
	} {
		s.env[k] = v
	}
	return s
}

func (s *shell) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.ctx, shared.Bin, args...)
	cmd.Dir = s.dir
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "EXACTLY_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	for k, v := range s.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

// run runs a command to its end. What it writes goes to no terminal, so there is not one escape sequence in it.
func (s *shell) run(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	cmd := s.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() //nolint:errcheck // how it ended is in ProcessState
	for _, text := range []string{out.String(), errs.String()} {
		require.NotContains(s.t, text, "\x1b", "exactly %v: an escape sequence, and nobody there to see it", args)
		require.NotContains(s.t, text, "\r", "exactly %v: a line that moves, and nobody there to see it", args)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// ok is run for what must end with 0.
func (s *shell) ok(args ...string) string {
	s.t.Helper()
	out, errs, code := s.run(args...)
	require.Zero(s.t, code, "exactly %v: %s%s", args, out, errs)
	return out
}
