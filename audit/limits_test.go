package audit

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRetention(t *testing.T) {
	t.Parallel()
	cut := (*world).cut
	t.Run("input", func(t *testing.T) {
		t.Parallel()
		w := consistent(t)
		w.store(ownHash)
		cut(w, w.opts.Input, 1, 2)
		w.exec(`DELETE FROM enriched_clicks WHERE source_partition = 1 AND source_offset IN (1, 4)`)
		rep := w.audit()
		require.Equal(t, []string{"ledger_gap ledger 1#2", "missing rows 1@1", "missing rows 1@4"}, said(rep), sentences(rep))
		require.EqualValues(t, 2, rep.Partitions[1].VouchedFrom)
		require.Contains(t, fmt.Sprint(rep.Notes), "retention removed the input below offset 2")
		require.NotZero(t, rep.Totals.OutOfReach)
	})
	t.Run("input, while it is read", func(t *testing.T) {
		t.Parallel()
		w := consistent(t)
		w.store(ownHash)
		w.opts.Progress = func(stage string, n int64) {
			if stage == "ledger" && n == 1 {
				cut(w, w.opts.Input, 0, 5)
			}
		}
		rep := w.audit()
		require.True(t, rep.Clean(), sentences(rep))
		require.EqualValues(t, 5, rep.Partitions[0].VouchedFrom)
	})
	t.Run("output", func(t *testing.T) {
		t.Parallel()
		w := consistent(t)
		w.unpublish(1, 4)
		w.store(ownHash)
		cut(w, w.opts.Output, 1, 2)
		rep := w.audit()
		require.Equal(t, []string{"missing events 1@4"}, said(rep), sentences(rep))
		require.EqualValues(t, 2, rep.Totals.OutOfReach)
	})
	t.Run("outbox", func(t *testing.T) {
		t.Parallel()
		w := consistent(t)
		w.store(ownHash)
		w.prune("outbox", 11)
		w.exec(`DELETE FROM outbox WHERE source_partition = 1 AND source_offset = 0`) // not dropped, but gone
		rep := w.audit()
		require.Equal(t, []string{"ledger_digest ledger 1#2", "ledger_gap ledger 1#2", "missing outbox 1@0"}, said(rep), sentences(rep))
	})
	t.Run("outbox that was still owed", func(t *testing.T) {
		t.Parallel()
		w := consistent(t)
		w.unpublish(0, 8)
		owed(w)
		w.group[0] = 8
		w.store(ownHash)
		w.prune("outbox", 8)
		rep := w.audit()
		require.Equal(t, []string{"missing outbox 0@8"}, said(rep), sentences(rep))
	})
}

// A day of the outbox that is merely not there, and that no entry of the ledger says was pruned, was removed by hand.
func TestDayDroppedByHand(t *testing.T) {
	t.Parallel()
	missing := []string{"ledger_gap ledger 0#2", "ledger_gap ledger 0#3", "missing outbox 0@0", "missing outbox 0@1", "missing outbox 0@2", "missing outbox 0@7", "missing outbox 0@8"}
	digests := []string{"ledger_digest ledger 0#2", "ledger_digest ledger 0#3"}
	for name, c := range map[string]struct {
		listed bool
		want   []string
	}{
		"listed nowhere":                      {false, slices.Concat(digests, missing)},
		"listed, and no entry vouches for it": {true, slices.Concat(digests[1:], missing)}, // that of the list; what is said to be pruned is laid out without digests
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := consistent(t)
			w.store(ownHash)
			w.exec(`DROP TABLE outbox_20260101`)
			if c.listed {
				w.exec(`INSERT INTO pruned (table_name, time_partition, source_id, source_partition, from_offset, to_offset, records, published, ledger_seq, who, why)
					VALUES ('outbox', 'outbox_20260101', 1, 0, 0, 9, 5, 11, 3, 'x', 'x')`)
			}
			rep := w.audit()
			require.Equal(t, c.want, said(rep), sentences(rep))
		})
	}
}

func TestPartition(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.unpublish(0, 1)
	w.unpublish(1, 1)
	w.store(ownHash)
	one := int32(1)
	w.opts.Partition = &one
	rep := w.audit()
	require.Equal(t, []string{"missing events 1@1"}, said(rep), sentences(rep))
	require.Len(t, rep.Partitions, 1)
	require.EqualValues(t, 6, rep.Totals.Input)
	one = 9
	_, err := Run(w.ctx, w.opts)
	require.ErrorContains(t, err, "has no partition 9")
}

// A flood of one class must not hide another; all are counted.
func TestFlood(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	w.exec(`UPDATE enriched_clicks SET url = 'x'`)
	w.exec(`DELETE FROM outbox WHERE source_partition = 1 AND source_offset = 5`)
	w.opts.MaxFindings = 3
	rep := w.audit()
	require.Len(t, rep.Findings, 3)
	require.EqualValues(t, 11, rep.Found[Different])
	require.True(t, slices.ContainsFunc(rep.Findings, func(f Finding) bool { return f.Class == Missing && f.Offset == 5 }))
}

// What can't be read is no finding, and no pass.
func TestCannotRun(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := consistent(t)
	_, err := Run(ctx, w.opts)
	require.ErrorIs(t, err, ErrNoSource)
	w.store(ownHash)
	for _, c := range []struct {
		name   string
		change func(*Options)
		says   string
	}{
		{"no such topic", func(o *Options) { o.Output = "nowhere" }, "nowhere"},
		{"another group", func(o *Options) { o.Group = "nobody" }, "no source in Postgres for this topic and group"},
		{"no registry", func(o *Options) { o.RegistryURL = "http://127.0.0.1:1" }, "audit: read input: decode"},
		{"no Postgres", func(o *Options) { o.DSN = "postgres://x@127.0.0.1:1/x" }, "audit: read Postgres snapshot: connect to postgres"},
		{"no group named", func(o *Options) { o.Group = "" }, "no group given"},
	} {
		o := w.opts
		c.change(&o)
		_, err := Run(ctx, o)
		require.ErrorContains(t, err, c.says, c.name)
	}
	w.exec(`UPDATE sources SET topic_id = gen_random_uuid()`)
	_, err = Run(ctx, w.opts)
	require.ErrorContains(t, err, "made anew")
}
