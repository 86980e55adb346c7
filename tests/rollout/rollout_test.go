package rollout

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/wait"
)

// load generates clicks until it is ended, and then says how many.
func (c *cluster) load() (end func() int64) {
	c.t.Helper()
	g := c.start("generate", "--json", "--rate", fmt.Sprint(rate), "--seed", "7", "--live")
	c.until("every partition is captured", func() bool { s, k := c.positions(); return len(s) == partitions && len(k) == partitions })
	return func() int64 {
		require.NoError(c.t, g.cmd.Process.Signal(syscall.SIGTERM))
		<-g.done
		require.Zero(c.t, g.cmd.ProcessState.ExitCode(), g.log.Tail())
		var made struct{ Acknowledged int64 }
		text := g.log.String()
		require.NoError(c.t, json.Unmarshal([]byte(text[strings.IndexByte(text, '{'):]), &made), text)
		require.Positive(c.t, made.Acknowledged)
		return made.Acknowledged
	}
}

// A rolling restart: each pod, the last one first, is ended and started again under its name. It keeps its place: who has which partition stays as it was.
func TestRollingRestart(t *testing.T) {
	c := newCluster(t)
	c.replicas.Store(3)
	c.up(0, 1, 2)
	end := c.load()
	before := c.spread(0, 1, 2)
	w := c.watch()
	for _, n := range []int{2, 1, 0} {
		c.down(n)
		require.Contains(t, c.pods[n].log.String(), "this pod is to come back")
		c.up(n)
		c.until(pod(n)+" is at work again", func() bool { return strings.Contains(c.pods[n].log.String(), "consuming") })
		require.NoError(t, wait.For(c.ctx, time.Second)) // for a rebalance that should not be
		require.Equal(t, before, c.owners(), "%s lost its place", pod(n))
	}
	w.stop(c, "rolling restart of 3")
	require.EqualValues(t, 3, c.asked.Load())
	c.clean(end())
}

// A scale from 2 to 4 to 2. Those that are scaled away leave the group: nobody waits for their sessions, which are four times as long as a partition may stand.
func TestScaleUpAndDown(t *testing.T) {
	c := newCluster(t)
	c.replicas.Store(2)
	c.up(0, 1)
	end := c.load()
	c.spread(0, 1)

	w := c.watch()
	c.replicas.Store(4)
	c.up(2, 3)
	c.spread(0, 1, 2, 3)
	w.stop(c, "scale from 2 to 4")

	w = c.watch()
	c.replicas.Store(2)
	c.down(3, 2)
	for _, n := range []int{3, 2} {
		require.Contains(t, c.pods[n].log.String(), "this pod was scaled away")
	}
	c.spread(0, 1)
	w.stop(c, "scale from 4 to 2")
	members, err := c.adm.Members(c.ctx)
	require.NoError(t, err)
	require.Len(t, members, 2, "%v", members)
	c.clean(end())
}
