package heal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/internal/offsets"
	"github.com/exactly-pipeline/exactly/internal/retention"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// postgres is one heal of Postgres under way.
//
// Each round looks (group offsets, stable; then the stored offsets; then the output topics to their end), holds what lacks something, and
// rebuilds it. It ends with a round that finds nothing left to do in what was held before it began: a former owner may have published what it had in
// memory. Partitions go forward side by side, a window of source offsets each, so that the outputs are read about twice: once to know where each
// event is, once for their bytes.
//
// Killed at any point: each window is one transaction, and moves the stored offset. Run again, it begins at the stored offset. What comes after the last
// window is done under the hold, which a killed heal leaves.
type postgres struct {
	*healer
	rb      engine.Rebuilder
	parts   map[int32]*part
	scanned map[string]map[int32]int64 // the outputs, up to here
	starts  kadm.ListedOffsets         // of the output logs, when the scan began
	epoch   int64                      // the highest that any group offset or row tells of
	refused []error
	told    map[int32]*heads.Told
	erased  *retention.Erasures // as the stores know of it; nil: not read yet
}

// part is one source partition that may lack something.
type part struct {
	id      int32
	index   index
	absent  bool // it has no stored offset at all
	asked   bool
	rested  bool  // left by a heal that was killed
	group   int64 // group offset of ours, -1 none
	before  int64
	next    int64 // stored offset
	to      int64 // what was published of it
	input   int64 // end of the input's log
	seen    admin.GroupOffset
	held    *offsets.Held
	seq     int64          // the newest ledger entry it had when it was first looked at
	skips   []ledger.Entry // deeds since the backup that moved the stored offset, ascending: nothing of these records was published
	redone  int            // of them, done again
	deeds   bool           // Kafka has heads of later entries
	ready   bool           // it was held when this round began
	refused bool
	done    Done
}

// headroom is how far above the epochs that are known a healed partition's is: claims that published nothing have left no trace in Kafka.
const headroom = 1 << 20

// rounds bounds how often a former owner's last publishes may come in between.
const rounds = 20

func (h *postgres) run(ctx context.Context) (done []Done, err error) {
	if err := h.desk.Meet(ctx); err != nil {
		return nil, err
	}
	defer func() { done, err = h.end(ctx, err) }()
	for range rounds {
		if err := h.look(ctx); err != nil || len(h.parts) == 0 {
			return nil, err
		}
		if err := h.scan(ctx); err != nil {
			return nil, err
		}
		lacking, err := h.judge(ctx)
		if err != nil || h.o.DryRun {
			return nil, errors.Join(append(h.refused, err)...)
		}
		if lacking, err = h.seizeAll(ctx, lacking); err != nil {
			return nil, err
		}
		if len(lacking) > 0 {
			if err := h.rebuild(ctx, lacking); err != nil {
				return nil, err
			}
		}
		if !slices.ContainsFunc(h.sorted(), func(p *part) bool { return p.held != nil && !p.ready }) && len(lacking) == 0 {
			failpoint.Hit(failpoint.HealRebuilt)
			return nil, errors.Join(h.refused...)
		}
	}
	return nil, fmt.Errorf("a worker still publishes for these partitions after %d rounds", rounds)
}

func (h *postgres) sorted() []*part {
	var out []*part
	for _, p := range h.parts {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *part) int { return int(a.id - b.id) })
	return out
}

// look finds the partitions that may lack something, and how far they were published as far as the group says.
func (h *postgres) look(ctx context.Context) error {
	_, ends, err := h.desk.Admin().LogRange(ctx, h.cfg.Topics.Input)
	if err != nil {
		return err
	}
	var ids []int32
	ends.Each(func(e kadm.ListedOffset) { ids = append(ids, e.Partition) })
	for _, id := range h.o.Partitions {
		if !slices.Contains(ids, id) {
			return refuse(id, "topic %s has no such partition", h.cfg.Topics.Input)
		}
	}
	if err := h.readTold(ctx); err != nil {
		return err
	}
	seqs, err := h.newestSeqs(ctx) // behind the heads: an entry is committed before its head is published
	if err != nil {
		return err
	}
	// The group before the rows: no honest group offset is above a stored offset that was read later.
	group, err := h.desk.Stable(ctx, ids, !h.o.DryRun)
	if err != nil {
		return err
	}
	rows, err := h.desk.Partitions(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		r, there := rows[id]
		g := group[id]
		seen, _, _ := txn.ParseMetadata(g.Metadata)
		h.epoch = max(h.epoch, seen, r.Epoch)
		p := h.parts[id]
		rested := strings.HasPrefix(r.HeldWhy, offsets.Healing+"postgres")
		deeds := there && h.told[id] != nil && h.told[id].Seq > seqs[id]
		lacks := g.Has && (!g.Ours || g.Offset > r.Next || !there) || !g.Has && (r.Captured || !there) || rested || deeds
		if h.o.Partitions != nil {
			lacks = slices.Contains(h.o.Partitions, id)
		}
		if p == nil {
			if !lacks {
				continue
			}
			p = &part{id: id, absent: !there, asked: h.o.Partitions != nil, rested: rested, before: r.Next, index: index{base: r.Next, open: !there}, seq: seqs[id], deeds: deeds}
			h.parts[id] = p
		}
		end, _ := ends.Lookup(h.cfg.Topics.Input, id)
		p.ready, p.next, p.group, p.seen, p.input = p.held != nil, r.Next, -1, g, end.Offset
		if g.Has && g.Ours {
			p.group = g.Offset
		}
	}
	return nil
}

// scan reads on in the output topics, to the end they have now, and notes where each event is.
func (h *postgres) scan(ctx context.Context) error {
	starts, ends, err := h.outputs(ctx)
	if err != nil {
		return err
	}
	if h.starts == nil {
		h.starts = starts
	}
	all := spans{}
	ends.Each(func(e kadm.ListedOffset) {
		s, _ := starts.Lookup(e.Topic, e.Partition)
		all.add(e.Topic, e.Partition, max(s.Offset, h.scanned[e.Topic][e.Partition]), e.Offset)
	})
	n := 0
	err = h.read(ctx, all, func(r *kgo.Record) error {
		id, offset, ok := h.coordinates(r)
		p := h.parts[id]
		if !ok || p == nil {
			return nil
		}
		if offset >= p.input {
			return refuse(id, "%s is an event of offset %d, and the input's log ends at %d: the input was truncated or recreated, or these are not its outputs",
				where(r.Topic, r.Partition, r.Offset), offset, p.input)
		}
		if n++; n%1_000_000 == 0 {
			h.log.Info("reading the output topics", zap.Int("events", n))
		}
		if pl := placed(r.Topic == h.cfg.Topics.DLQ, r.Partition, r.Offset); !p.index.add(offset, pl) {
			first := p.index.get(offset)
			return refuse(id, "source offset %d was published twice, as %s and %s: which of them Postgres had can't be told; exactly audit", offset,
				where(h.topic(first), first.partition(), first.offset()), where(r.Topic, r.Partition, r.Offset))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the output topics: %w", err)
	}
	for topic, parts := range all {
		if h.scanned[topic] == nil {
			h.scanned[topic] = map[int32]int64{}
		}
		for id, s := range parts {
			h.scanned[topic][id] = max(s.from, s.to)
		}
	}
	return nil
}

func (h *healer) topic(p place) string {
	if p.dlq() {
		return h.cfg.Topics.DLQ
	}
	return h.cfg.Topics.Output
}

// judge says which partitions lack something that can be rebuilt.
func (h *postgres) judge(ctx context.Context) (lacking []*part, err error) {
	for _, p := range h.sorted() {
		if p.refused {
			continue
		}
		p.to = max(p.group, p.index.end())
		if p.absent && p.held == nil {
			if p.to <= 0 {
				continue // nothing was ever published of it: whoever starts it chooses where
			}
			first, ok := p.index.first()
			if !ok {
				p.refused = true
				h.refused = append(h.refused, refuse(p.id, "Postgres knows nothing of it, the group offset is %d, and the output topics have no event of it: expired?", p.to))
				continue
			}
			p.next, p.before = first, first
		}
		if p.to <= p.next {
			continue
		}
		p.skips = h.skipped(p)
		why, err := h.holes(ctx, p)
		if err != nil {
			return nil, err
		}
		if why != nil {
			p.refused = true
			h.refused = append(h.refused, why)
			continue
		}
		lacking = append(lacking, p)
	}
	return lacking, nil
}

// seizeAll holds what lacks something, and what a heal that was killed has left, and returns which of lacking it could hold.
func (h *postgres) seizeAll(ctx context.Context, lacking []*part) (left []*part, err error) {
	for _, p := range h.sorted() {
		lacks := slices.Contains(lacking, p)
		if p.held == nil && (lacks || p.rested || p.deeds && !p.refused) {
			err := h.seize(ctx, p)
			var refused *offsets.RefusedError
			if errors.As(err, &refused) {
				p.refused = true
				h.refused = append(h.refused, err)
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		if lacks {
			left = append(left, p)
		}
	}
	return left, nil
}

// seize holds a partition, and makes its row first if there is none.
func (h *postgres) seize(ctx context.Context, p *part) (err error) {
	if p.absent {
		if err := h.begin(ctx, p); err != nil {
			return err
		}
	}
	held, err := h.desk.Seize(ctx, p.id, "postgres", h.o.Reason, h.epoch+headroom)
	if err != nil {
		return err
	}
	if held.Next() != p.next {
		return errors.Join(refuse(p.id, "the stored offset moved meanwhile, from %d to %d: look again", p.next, held.Next()), held.LetGo(ctx))
	}
	p.held = held
	return nil
}

// begin gives a partition that Postgres knows nothing of the row that a first start gives it. Where the source was first started is lost:
// it begins at the first event there is.
func (h *postgres) begin(ctx context.Context, p *part) error {
	source := h.desk.Source().ID
	return pgx.BeginFunc(ctx, h.desk.DB(), func(tx pgx.Tx) error {
		// As a start does: what has no row from now on is a partition added later.
		if _, err := tx.Exec(ctx, `UPDATE sources SET start_from = 'heal', started_at = now() WHERE source_id = $1 AND start_from = ''`, source); err != nil {
			return fmt.Errorf("start partition %d: %w", p.id, err)
		}
		tag, err := tx.Exec(ctx, `INSERT INTO partition_offsets (source_id, source_partition, next_offset) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, source, p.id, p.next)
		if err != nil {
			return fmt.Errorf("start partition %d: %w", p.id, err)
		}
		if tag.RowsAffected() == 0 {
			return refuse(p.id, "somebody has started it meanwhile: look again")
		}
		_, err = ledger.AppendDeed(ctx, tx, ledger.Deed{
			SourceID: source, Partition: p.id, Kind: ledger.Start, From: p.next, To: p.next, Who: h.desk.By, Build: h.o.Build,
			Why: h.o.Reason + " (heal: Postgres had lost the partition; this is where what the output topics hold of it begins)",
		})
		return err
	})
}
