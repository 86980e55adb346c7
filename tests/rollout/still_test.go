package rollout

import (
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/wait"
)

// positions are the stored and the group offset of each partition; of the group, those that can be told now.
func (c *cluster) positions() (stored, group map[int32]int64) {
	stored, group = map[int32]int64{}, map[int32]int64{}
	rows, err := c.db.Query(c.ctx, `SELECT source_partition, next_offset FROM partition_offsets`)
	if err != nil {
		return stored, group
	}
	defer rows.Close()
	for rows.Next() {
		var p int32
		var next int64
		if rows.Scan(&p, &next) == nil {
			stored[p] = next
		}
	}
	var ids []int32
	for p := range int32(partitions) {
		ids = append(ids, p)
	}
	if os, err := c.adm.GroupOffsets(c.ctx, ids); err == nil {
		for p, o := range os {
			if o.Has && !o.Pending {
				group[p] = o.Offset
			}
		}
	}
	return stored, group
}

func sum(of map[int32]int64) (n int64) {
	for _, v := range of {
		n += v
	}
	return n
}

// watch looks, until it is told to stop, at how long each partition stands still in each sink, while clicks come for all of them all the time.
type watch struct {
	end     chan struct{}
	done    sync.WaitGroup
	longest map[string]time.Duration // by sink
	where   map[string]int32
	looks   int
}

func (c *cluster) watch() *watch {
	w := &watch{end: make(chan struct{}), longest: map[string]time.Duration{}, where: map[string]int32{}}
	at, moved := map[string]map[int32]int64{}, map[string]map[int32]time.Time{}
	look := func() {
		stored, group := c.positions()
		now := time.Now()
		for sink, is := range map[string]map[int32]int64{"Postgres": stored, "Kafka": group} {
			if at[sink] == nil {
				at[sink], moved[sink] = map[int32]int64{}, map[int32]time.Time{}
			}
			for p := range int32(partitions) {
				if n, told := is[p]; moved[sink][p].IsZero() || told && n != at[sink][p] {
					at[sink][p], moved[sink][p] = n, now
				}
				if still := now.Sub(moved[sink][p]); still > w.longest[sink] {
					w.longest[sink], w.where[sink] = still, p
				}
			}
		}
		w.looks++
	}
	w.done.Go(func() {
		for {
			select {
			case <-w.end:
				return
			default:
			}
			look()
			_ = wait.For(c.ctx, 50*time.Millisecond)
		}
	})
	return w
}

// stop requires that nothing stood still for too long.
func (w *watch) stop(c *cluster, during string) {
	c.t.Helper()
	close(w.end)
	w.done.Wait()
	for _, sink := range []string{"Postgres", "Kafka"} {
		c.t.Logf("%s: longest without progress in %s: %v, partition %d (%d looks)", during, sink, w.longest[sink].Round(10*time.Millisecond), w.where[sink], w.looks)
		require.Less(c.t, w.longest[sink], mayStand, "%s: partition %d stood still in %s", during, w.where[sink], sink)
	}
	require.Greater(c.t, w.looks, 5)
}
