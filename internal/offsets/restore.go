package offsets

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// kafkaTimeout bounds one group commit from outside. It is made under the rows' locks, and a claim ends who holds one too long.
const kafkaTimeout = 10 * time.Second

// rounds bounds how often a former owner's last publishes may come in between. Each round waits for the transactions that are open.
const rounds = 20

// Restore says which group offsets to set again to what the output topics say.
type Restore struct {
	Partitions []int32 // nil: those that a worker would refuse
	Reason     string
	DryRun     bool
	Timeout    time.Duration // of reading the output topics; 0: none
}

// Restore sets group offsets that were reset by hand, or lost, to the end of what the output topics hold, and notes it in the ledger.
//
// The order, and what a kill in between leaves: (1) the rows are held: a hold, to be ended by running it again, or by Release; (2) the
// group offset is read stable, the outputs are read to their stable end, what is wrong is committed, and all of that again until there
// is nothing wrong: a hold, and a group offset; (3) the ledger entry and the end of the hold, in one transaction.
//
// What could be done was done, also if the error names partitions that were refused.
func (d *Desk) Restore(ctx context.Context, o Restore) ([]Done, error) {
	if err := d.meet(ctx); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	rows, err := d.rows(ctx, d.db, o.Partitions, false)
	if err == nil && o.Partitions == nil {
		rows, err = d.doubtful(ctx, rows, !o.DryRun)
	}
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	s := &restoring{d: d, o: o, rows: rows, results: map[int32]*result{}}
	if o.DryRun {
		err = s.look(ctx)
	} else {
		err = s.run(ctx)
	}
	if err != nil {
		err = fmt.Errorf("restore: %w", err)
	}
	return s.done, err
}

// doubtful leaves those partitions whose group offset a worker would refuse, or has to look for.
func (d *Desk) doubtful(ctx context.Context, rows []*row, fence bool) ([]*row, error) {
	group, err := d.stable(ctx, rows, fence)
	if err != nil {
		return nil, err
	}
	// Read again behind the group: workers go on meanwhile, and no group offset is above a stored offset that was read later.
	now, err := d.rows(ctx, d.db, partitions(rows), false)
	if err != nil {
		return nil, err
	}
	var out []*row
	for i, r := range rows {
		r.next = now[i].next
		if g := group[r.partition]; g.Has && (!g.Ours || g.Offset > r.next || g.Offset < r.floor) || !g.Has && r.captured {
			out = append(out, r)
		}
	}
	return out, nil
}

// restoring is one Restore under way.
type restoring struct {
	d       *Desk
	o       Restore
	rows    []*row // held; those refused are taken out
	results map[int32]*result
	found   map[int32]int64
	ends    kadm.ListedOffsets // of the outputs, listed before found was
	done    []Done
	refused []error
}

type result struct {
	before    admin.GroupOffset
	at        int64
	committed bool // or tried to
}

func (s *restoring) run(ctx context.Context) (err error) {
	d := s.d
	err = pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		locked, err := d.rows(ctx, tx, partitions(s.rows), true)
		s.rows = locked
		for _, r := range locked {
			if err == nil {
				err = d.seize(ctx, tx, r, "restore", s.o.Reason)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	defer func() { err = s.letGo(ctx, err) }()
	if err := d.fence(ctx, s.rows); err != nil {
		return err
	}
	if err := s.correct(ctx); err != nil {
		return err
	}
	for len(s.rows) > 0 {
		if err := s.finish(ctx, s.rows[0]); err != nil {
			return err
		}
		s.rows = s.rows[1:]
	}
	return errors.Join(s.refused...)
}

// correct commits until what the group says is what the outputs say.
//
// An owner that runs may still publish what it captured before the hold, so a commit of ours can be behind what the outputs hold by
// then. Hence the order of looking: first the group offset, stable. Whatever was staged before our commit is decided then, its records
// are below the ends listed next, and the scan finds them. Whatever is staged later carries its own offset and replaces ours (Kafka
// keeps the offset whose record was appended last, OffsetMetadataManager.replayEndTransactionMarker). An owner's publishes end at the
// stored offset, which the hold keeps still; so this ends.
func (s *restoring) correct(ctx context.Context) error {
	for range rounds {
		wrong, err := s.compare(ctx, true)
		if err != nil || len(wrong) == 0 {
			return err
		}
		offsets := map[int32]admin.Outside{}
		for _, r := range wrong {
			res := s.results[r.partition]
			res.committed = true
			offsets[r.partition] = admin.Outside{Offset: res.at, Metadata: txn.Metadata(r.epoch, r.seq)}
		}
		if err := s.d.commit(ctx, wrong, offsets); err != nil {
			return err
		}
	}
	return fmt.Errorf("a worker still publishes for these partitions after %d rounds", rounds)
}

// commit commits group offsets for seized rows. Their locks make sure that nobody has released or seized them meanwhile.
func (d *Desk) commit(ctx context.Context, held []*row, offsets map[int32]admin.Outside) error {
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	return d.underHold(ctx, held, func(pgx.Tx) error { return d.adm.CommitOutside(ctx, offsets) })
}

// compare looks at the group and the outputs and returns the rows whose group offset is wrong.
func (s *restoring) compare(ctx context.Context, fence bool) (wrong []*row, err error) {
	d := s.d
	group, err := d.stable(ctx, s.rows, fence)
	if err != nil {
		return nil, err
	}
	if err := s.scan(ctx); err != nil {
		return nil, err
	}
	if s.o.DryRun { // nothing is held: what the scan found was captured by now, but not when the rows were read before
		if s.rows, err = d.rows(ctx, d.db, partitions(s.rows), false); err != nil {
			return nil, err
		}
	}
	var left []*row
	for _, r := range s.rows {
		g := group[r.partition]
		res := s.results[r.partition]
		if res == nil || s.o.DryRun {
			res = &result{before: g}
			s.results[r.partition] = res
		}
		res.at = max(s.found[r.partition], r.floor, r.begin)
		if res.at > r.next {
			// Setting the group offset to the stored one would hide it, and publish the difference a second time.
			s.refused = append(s.refused, refuse(r.partition, "the output topics hold events up to offset %d, above the stored offset %d: Postgres has gone back in time and lacks %d "+
				"records that Kafka has; no group offset repairs that, see doc/failures.md, \"Postgres gone back in time\"", res.at, r.next, res.at-r.next))
			if err := s.open(ctx, r); err != nil {
				return nil, err
			}
			continue
		}
		left = append(left, r)
		if !g.Has || !g.Ours || g.Offset != res.at {
			wrong = append(wrong, r)
		}
	}
	s.rows = left
	return wrong, nil
}

// scan reads the outputs, unless nothing was written to them since it last did.
func (s *restoring) scan(ctx context.Context) error {
	if s.o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.o.Timeout)
		defer cancel()
	}
	t := s.d.cfg.Topics
	ends, err := s.d.adm.Kadm().ListEndOffsets(ctx, t.Output, t.DLQ)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("list the ends of the output topics: %w", err)
	}
	same := func(a, b map[int32]kadm.ListedOffset) bool {
		return maps.EqualFunc(a, b, func(a, b kadm.ListedOffset) bool { return a.Offset == b.Offset })
	}
	if s.found != nil && maps.EqualFunc(ends, s.ends, same) {
		return nil
	}
	if s.found, err = s.d.adm.ScanOutputs(ctx, partitions(s.rows)); err != nil {
		return err
	}
	s.ends = ends
	return nil
}

// finish writes what was done and ends the hold.
func (s *restoring) finish(ctx context.Context, r *row) error {
	res := s.results[r.partition]
	out := Done{Partition: r.partition, Changed: res.committed, After: &res.at, Says: s.says(r, res)}
	if res.before.Has {
		out.Before = &res.before.Offset
	}
	err := s.d.underHold(ctx, []*row{r}, func(tx pgx.Tx) error {
		if res.committed || r.resumed { // what was killed before may have committed
			why := fmt.Sprintf("%s (the group offset was %s; the output topics say %d, last seen at least %d)", s.o.Reason,
				described(res.before), s.found[r.partition], r.floor)
			if err := s.d.append(ctx, tx, r, ledger.Deed{Kind: ledger.Restore, From: res.at, To: res.at, Why: why}); err != nil {
				return err
			}
		}
		if r.keep {
			return nil
		}
		_, err := tx.Exec(ctx, openSQL, s.d.source.ID, r.partition)
		return err
	})
	if err != nil {
		return err
	}
	if r.keep {
		out.Says += "; still held"
	}
	if out.Changed || r.resumed {
		out.Says += s.d.publishHeads(ctx, r.partition)
	}
	s.done = append(s.done, out)
	return nil
}

// open ends the hold of a partition that nothing was done to.
func (s *restoring) open(ctx context.Context, r *row) error {
	if s.o.DryRun || r.keep || s.results[r.partition] != nil && s.results[r.partition].committed {
		return nil
	}
	return s.d.underHold(ctx, []*row{r}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, openSQL, s.d.source.ID, r.partition)
		return err
	})
}

// letGo ends the holds of what was not finished, except where a commit was made or tried: what it did has to be looked at first.
func (s *restoring) letGo(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), kafkaTimeout)
	defer cancel()
	for _, r := range s.rows {
		if oerr := s.open(ctx, r); oerr != nil {
			err = errors.Join(err, oerr)
		} else if res := s.results[r.partition]; res != nil && res.committed {
			err = errors.Join(err, fmt.Errorf("partition %d stays held: run this again", r.partition))
		}
	}
	return err
}
