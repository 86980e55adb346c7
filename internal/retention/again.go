package retention

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// EraseAgain blanks again what was erased before and is there again: after a restore from a backup, or a heal that rebuilt it from Kafka. What was erased
// it knows from the table erasures and, because the table may have gone back in time as well, from the heads topic, where each erasure is kept
// beside its head: signed, if there is a key. What Kafka did not know yet it is told. Where nothing is there again, nothing is noted. A heal of Postgres
// calls it before it lets go. What replays of dead letters captured is covered as well.
func EraseAgain(ctx context.Context, c *config.Config, o Erase) (*ErasureReport, error) {
	r, err := EraseSourceAgain(ctx, c, o)
	own := c.Replay()
	if err != nil || own.Topics.Input == "" {
		return r, err
	}
	replays, err := EraseSourceAgain(ctx, &own, o)
	if errors.Is(err, txn.ErrNoSource) { // there was never a replay
		return r, nil
	}
	if replays != nil {
		r.Partitions, r.Notes = append(r.Partitions, replays.Partitions...), append(r.Notes, replays.Notes...)
	}
	return r, err
}

// EraseSourceAgain does it for one source.
func EraseSourceAgain(ctx context.Context, c *config.Config, o Erase) (*ErasureReport, error) {
	what := func(err error) error { return fmt.Errorf("erase again: %w", explained(err)) }
	conn, err := connectAlone(ctx, c)
	if err != nil {
		return nil, what(err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // ends the lock, too
	src, err := txn.FindSource(ctx, conn, c.Topics.Input, c.Group)
	if err != nil {
		return nil, what(err)
	}
	r := &ErasureReport{Erasure: uuid.NewString(), DryRun: o.DryRun, Partitions: []Erased{}}
	noted, err := inTable(ctx, conn, src.ID)
	if err != nil {
		return nil, what(err)
	}
	known, notes, err := inKafka(ctx, c, &src, o.PublicKeys)
	if err != nil {
		return nil, what(err)
	}
	r.Notes = append(r.Notes, notes...)
	for i := range known {
		noted.add(known[i].Entry.Partition, known[i].Offsets)
	}
	if !o.DryRun {
		if err := tellErasures(ctx, c, conn, &src, known); err != nil {
			return nil, what(err)
		}
	}
	found, err := thereAgain(ctx, conn, src.ID, noted)
	if err != nil {
		return nil, what(err)
	}
	if o.DryRun {
		r.Partitions = found
		return r, nil
	}
	if err := awaitPublished(ctx, c, conn, found, &o); err != nil {
		return r, what(err)
	}
	return r, r.blank(ctx, c, conn, found, &o, what)
}

// offsets are source offsets by partition.
type offsets map[int32]map[int64]bool

func (o offsets) add(partition int32, list []int64) {
	if o[partition] == nil {
		o[partition] = map[int64]bool{}
	}
	for _, at := range list {
		o[partition][at] = true
	}
}

func inTable(ctx context.Context, db heads.Querier, source int16) (offsets, error) {
	rows, err := db.Query(ctx, `SELECT source_partition, offsets FROM erasures WHERE source_id = $1`, source)
	if err != nil {
		return nil, err
	}
	out := offsets{}
	var partition int32
	var list []int64
	_, err = pgx.ForEachRow(rows, []any{&partition, &list}, func() error { out.add(partition, list); list = nil; return nil })
	return out, err
}

// inKafka are the erasures of which Kafka knows, as far as their entries vouch for them, and what is to be said of the others.
func inKafka(ctx context.Context, c *config.Config, src *txn.Source, keys []ed25519.PublicKey) (known []heads.Erasure, notes []string, err error) {
	if c.Ledger.HeadsTopic == "" {
		return nil, []string{"there is no topic of ledger heads (ledger.heads_topic): only what the table erasures has is known"}, nil
	}
	if len(keys) == 0 && c.Ledger.SigningKeyFile != "" {
		signer, err := ledger.LoadSigner(c.Ledger.SigningKeyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("ledger.signing_key_file: %w", err)
		}
		keys = append(keys, signer.Public())
	}
	all, damaged, err := heads.Erasures(ctx, c, src.Stream(), keys)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range damaged {
		notes = append(notes, fmt.Sprintf("%s/%d@%d is left out: %s", c.Ledger.HeadsTopic, d.Partition, d.Offset, d.Why))
	}
	for i := range all {
		e := &all[i]
		if !bytes.Equal(e.Entry.Digest, ErasureDigest(e.Entry.SourceID, e.Entry.Partition, e.Offsets)) {
			notes = append(notes, fmt.Sprintf("%s: the erasure of partition %d, seq %d, is left out: its offsets are not those that its entry vouches for", c.Ledger.HeadsTopic, e.Entry.Partition, e.Entry.Seq))
			continue
		}
		known = append(known, *e)
	}
	return known, notes, nil
}

// tellErasures tells Kafka of the erasures that only the table knows.
func tellErasures(ctx context.Context, c *config.Config, db heads.Querier, src *txn.Source, known []heads.Erasure) error {
	if c.Ledger.HeadsTopic == "" {
		return nil
	}
	told := map[string]bool{}
	for i := range known {
		told[string(known[i].Entry.Hash())] = true
	}
	rows, err := db.Query(ctx, `SELECT `+ledger.Columns+`, (SELECT offsets FROM erasures e WHERE (e.source_id, e.source_partition, e.ledger_seq) = (l.source_id, l.source_partition, l.seq))
		FROM offset_ledger l WHERE source_id = $1 AND kind = 'erase' ORDER BY source_partition, seq`, src.ID)
	if err != nil {
		return err
	}
	missing, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e heads.Erasure, err error) {
		var hash []byte
		n := &e.Entry
		err = row.Scan(&n.SourceID, &n.Partition, &n.Seq, &n.Kind, &n.From, &n.To, &n.Records, &n.Rows, &n.DeadLetters, &n.Events, &n.Digest, &n.PrevHash, &n.Epoch,
			&n.Worker, &n.Why, &n.Who, &n.Build, &n.Schemas, &n.Geo, &n.CommittedAt, &hash, &e.Offsets)
		return e, err
	})
	if err != nil {
		return err
	}
	missing = slices.DeleteFunc(missing, func(e heads.Erasure) bool { return told[string(e.Entry.Hash())] })
	return heads.PostErasures(ctx, c, src.Stream(), missing)
}

// thereAgain is what of the offsets is not blank, below the stored offset: what is not captured can't be blanked.
func thereAgain(ctx context.Context, conn *pgx.Conn, source int16, of offsets) ([]Erased, error) {
	f := &finder{conn: conn, found: map[place]map[int64]*weight{}}
	for _, partition := range slices.Sorted(maps.Keys(of)) {
		list := slices.Sorted(maps.Keys(of[partition]))
		for i, sql := range []string{
			`SELECT source_id, source_partition, source_offset FROM enriched_clicks WHERE user_id <> 0`,
			`SELECT source_id, source_partition, source_offset FROM outbox WHERE erased_at IS NULL`,
			`SELECT source_id, source_partition, source_offset FROM dead_letters WHERE (key IS NOT NULL OR value IS NOT NULL OR headers <> '\x00')`,
		} {
			rows, err := conn.Query(ctx, sql+` AND source_id = $1 AND source_partition = $2 AND source_offset = ANY($3)`, source, partition, list)
			if err == nil {
				err = f.each(rows, func(s int16, p int32, o int64) {
					w := f.at(s, p, o)
					*[]*int64{&w.rows, &w.messages, &w.dead}[i]++
				})
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return f.entries(), nil
}

// tell publishes the heads of the entries, each with its offsets, for every source there is.
func tell(ctx context.Context, c *config.Config, conn *pgx.Conn, done []Erased) error {
	sources, err := readSources(ctx, conn)
	if err != nil {
		return err
	}
	by := map[int16][]heads.Erasure{}
	for i := range done {
		by[done[i].SourceID] = append(by[done[i].SourceID], heads.Erasure{Entry: done[i].entry, Offsets: done[i].offsets})
	}
	for id, es := range by {
		if err := heads.PostErasures(ctx, c, sources[id].stream(), es); err != nil {
			return err
		}
	}
	return nil
}
