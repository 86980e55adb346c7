//go:build e2e

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/chaos"
	"github.com/exactly-pipeline/exactly/internal/chaos/rig"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/stack"
)

// TestShort is a little of everything that the embedded stack can stand: `make chaos` does it all, on Apache Kafka.
func TestShort(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := t.TempDir()
	r, err := rig.Start(ctx, rig.Options{Dir: dir, Kind: stack.Embedded, Brokers: 1})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	const seed = 1
	clients := []string{"confluent", "franz"}
	schedule := []chaos.Fault{
		{Lane: "kills a", Kind: chaos.KillAt, Worker: chaos.WorkerA, Point: failpoint.PublishOffsetsSent, Client: clients[0]},
		{Lane: "kills a", Kind: chaos.KillAt, Worker: chaos.WorkerA, Point: failpoint.DrainProduced, Client: clients[1], AtOnce: true},
		{Lane: "zombies", Kind: chaos.Zombie, Worker: chaos.WorkerZ, For: rig.Session + time.Second, Client: clients[0]},
		{Lane: "network", Kind: rig.CommitLost, Worker: rig.WorkerN, Client: clients[1]},
		{Lane: "stores", Kind: rig.PGKill},
	}
	rep, err := chaos.Run(ctx, chaos.Options{
		Exe: bin, Env: r.Env(), WorkerEnv: r.WorkerEnv(), Dir: t.TempDir(), Seed: seed, Clicks: 20_000, Pace: 20 * time.Second, Schedule: schedule,
		Inject: r.Inject(), What: r.Name(), Out: os.Stdout,
	})
	require.NoError(t, err)
	require.NotEqual(t, chaos.Broken, rep.Verdict, rep.Why)
	require.NotEqual(t, chaos.NotKnown, rep.Verdict, rep.Why)
	require.Zero(t, rep.Lost+rep.Doubled+rep.Different+rep.Other+rep.Stuck)
	require.GreaterOrEqual(t, rep.Audit.Totals.Input, int64(20_000))
	for _, f := range rep.Faults {
		require.Empty(t, f.Failed)
		require.NotEmpty(t, f.Confirmed, "%+v", f)
		require.True(t, f.Recovered)
	}
	t.Run("command", func(t *testing.T) { command(t, r) })
}

// command is `exactly chaos`, on the same stack as if that were a staging deployment.
func command(t *testing.T, r *rig.Rig) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), bin, "chaos", "--i-understand", "--kills", "2", "--zombies", "1", "--clicks", "5000", "--pace", "10s", "--between", "300ms",
		"--takeover", "1m", "--seed", "3", "--out", dir, "--both-clients", "--json")
	for k, v := range r.Env() {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	require.NoError(t, err, "%s", said.Bytes())
	var rep chaos.Report
	require.NoError(t, json.Unmarshal(out, &rep))
	require.Equal(t, chaos.Held, rep.Verdict)
	require.Equal(t, 2, rep.Kills())
	require.Equal(t, 1, rep.Struck(chaos.Zombie))
	require.GreaterOrEqual(t, rep.Audit.Totals.Input, int64(25_000))
	require.FileExists(t, filepath.Join(dir, "chaos-report.html"))
}
