package replay

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// Options are what a person asks for.
type Options struct {
	Filter
	DryRun bool
	Wait   time.Duration // how long to wait until all of it is in both sinks; 0: not
	By     string
	Reason string
	Build  string
	Log    *zap.Logger
}

// Report is what came of it.
type Report struct {
	Replay    string `json:"replay,omitempty"` // the command's own name, in the table replays and in the ledger
	DryRun    bool   `json:"dry_run"`
	Selected  int    `json:"selected"`     // letters that are open, or were requested and not captured yet
	Requested int    `json:"requested"`    // of them new with this command
	Pointers  int    `json:"pointers"`     // written; also for letters whose pointer an earlier command may not have written
	Captured  int    `json:"captured"`     // with --wait: of the letters selected
	Again     int    `json:"failed_again"` // with --wait: of those captured, dead letters once more
}

// Replay hands dead letters in again. What is asked for stands in Postgres first, and in the ledger; then the pointers are written. Killed in
// between, the next replay of the same letters writes the pointers that are missing; written twice, the second does nothing.
func Replay(ctx context.Context, c *config.Config, o Options) (*Report, error) {
	if c.Topics.Replay == "" {
		return nil, errors.New("topics.replay is empty: there is no topic for pointers")
	}
	db, err := pgxpool.New(ctx, c.Postgres.DSN)
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	defer db.Close()
	src, err := txn.FindSource(ctx, db, c.Topics.Input, c.Group)
	if err != nil {
		return nil, err
	}
	o.States = []string{"open", "requested"}
	rep := &Report{DryRun: o.DryRun}
	if o.DryRun {
		err = EachHead(ctx, db, &src, &o.Filter, func(*Letter) error { rep.Selected++; return nil })
		return rep, err
	}
	own := c.Replay()
	adm, err := admin.New(&own, o.Log)
	if err != nil {
		return nil, err
	}
	defer adm.Close()
	if err := EnsureSource(ctx, db, &own, adm); err != nil {
		return nil, err
	}
	there, err := adm.Partitions(ctx)
	if err != nil {
		return nil, err
	}
	pointers, err := request(ctx, db, c, &src, o, rep)
	if err != nil || len(pointers) == 0 {
		return rep, err
	}
	failpoint.Hit(failpoint.ReplayRequested)
	ends, err := write(ctx, &own, pointers, there[own.Topics.Input], rep)
	if err != nil || o.Wait == 0 {
		return rep, err
	}
	return rep, await(ctx, db, adm, pointers, ends, o.Wait, rep)
}

// EnsureSource makes the replay topic a source, the first time.
func EnsureSource(ctx context.Context, db *pgxpool.Pool, own *config.Config, adm *admin.Admin) error {
	ps, err := adm.Partitions(ctx)
	if err != nil {
		return err
	}
	if ps[own.Topics.Input] == 0 {
		return fmt.Errorf("topic %s does not exist: run `exactly setup`", own.Topics.Input)
	}
	s := txn.Source{Topic: own.Topics.Input, Group: own.Group}
	if s.ClusterID, err = adm.Cluster(ctx); err != nil {
		return err
	}
	if s.TopicIDs, err = adm.TopicIDs(ctx); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('exactly replay source'))`); err != nil {
			return err
		}
		was, err := txn.FindSource(ctx, tx, s.Topic, s.Group)
		if errors.Is(err, txn.ErrNoSource) {
			_, err = txn.AddSource(ctx, tx, s)
			return err
		}
		if err != nil {
			return err
		}
		return was.Matches(s.ClusterID, s.TopicIDs)
	})
}

// request notes what is asked for: a row each, and a ledger entry for every partition of the input that it is about. Two commands at once wait for each other.
func request(ctx context.Context, db *pgxpool.Pool, c *config.Config, src *txn.Source, o Options, rep *Report) ([]Pointer, error) {
	id := uuid.New()
	rep.Replay = id.String()
	var pointers []Pointer
	var touched []int32
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('exactly replay'))`); err != nil {
			return err
		}
		asked := map[int32][]Pointer{}
		var open []opened
		err := EachHead(ctx, tx, src, &o.Filter, func(l *Letter) error {
			p := Pointer{V: 1, SourceID: l.OfSourceID, Partition: l.OfPartition, Offset: l.OfOffset, Attempt: l.Attempt + 1}
			pointers = append(pointers, p)
			if l.State == "open" {
				asked[p.Partition] = append(asked[p.Partition], p)
				open = append(open, opened{p, l.SourceID, l.Partition, l.Offset})
			}
			return nil
		})
		if err != nil {
			return err
		}
		for some := range slices.Chunk(open, batchOfRequests) {
			if err := enrol(ctx, tx, some, id, o); err != nil {
				return err
			}
		}
		rep.Requested = len(open)
		touched, err = enter(ctx, tx, src, asked, o, o.Reason+" (replay "+id.String()+")")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("request a replay: %w", err)
	}
	rep.Selected = len(pointers)
	vouch(ctx, db, c, src, touched, o.Log)
	return pointers, nil
}

// opened is a letter that is asked for: its pointer, and where its own row is.
type opened struct {
	Pointer
	sourceID  int16
	partition int32
	offset    int64
}

// batchOfRequests is how many letters one statement notes: there may be millions.
const batchOfRequests = 10_000

// enrol notes the requests of some letters, and in their rows when that was.
func enrol(ctx context.Context, tx pgx.Tx, some []opened, id uuid.UUID, o Options) error {
	n := len(some)
	of, letters := coordinates{make([]int16, n), make([]int32, n), make([]int64, n)}, coordinates{make([]int16, n), make([]int32, n), make([]int64, n)}
	attempts := make([]int32, n)
	for i, l := range some {
		of.sources[i], of.partitions[i], of.offsets[i], attempts[i] = l.SourceID, l.Partition, l.Offset, int32(l.Attempt)
		letters.sources[i], letters.partitions[i], letters.offsets[i] = l.sourceID, l.partition, l.offset
	}
	if _, err := tx.Exec(ctx, `INSERT INTO replays (source_id, source_partition, source_offset, attempt, letter_source_id, letter_partition, letter_offset, replay, who, why)
		SELECT l.*, $8::text::uuid, $9, $10 FROM unnest($1::smallint[], $2::int[], $3::bigint[], $4::int[], $5::smallint[], $6::int[], $7::bigint[]) l`,
		of.sources, of.partitions, of.offsets, attempts, letters.sources, letters.partitions, letters.offsets, id.String(), o.By, o.Reason); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE dead_letters d SET replayed_at = now() FROM unnest($1::smallint[], $2::int[], $3::bigint[]) l (source, partition, "offset")
		WHERE (d.source_id, d.source_partition, d.source_offset) = (l.source, l.partition, l."offset")`, letters.sources, letters.partitions, letters.offsets)
	return err
}

// coordinates are columns of them.
type coordinates struct {
	sources    []int16
	partitions []int32
	offsets    []int64
}

// enter appends a ledger entry for every partition of the input that something was asked for of, and says which these are.
func enter(ctx context.Context, tx pgx.Tx, src *txn.Source, asked map[int32][]Pointer, o Options, why string) ([]int32, error) {
	touched := slices.Sorted(maps.Keys(asked)) // locks are taken in this order
	for _, partition := range touched {
		h := sha256.New()
		for _, p := range asked[partition] { // as erase and prune: numbers in decimal, a space behind each
			h.Write(strconv.AppendInt(nil, p.Offset, 10))
			h.Write([]byte{' '})
			h.Write(strconv.AppendInt(nil, int64(p.Attempt), 10))
			h.Write([]byte{' '})
		}
		if _, err := ledger.AppendDeed(ctx, tx, ledger.Deed{
			SourceID: src.ID, Partition: partition, Kind: ledger.Replay, Records: int64(len(asked[partition])), Digest: h.Sum(nil), Who: o.By, Why: why, Build: o.Build,
		}); err != nil {
			return nil, err
		}
	}
	return touched, nil
}

// vouch publishes the partitions' ledger heads.
func vouch(ctx context.Context, db *pgxpool.Pool, c *config.Config, src *txn.Source, touched []int32, log *zap.Logger) {
	if len(touched) == 0 {
		return
	}
	hs, err := heads.Newest(ctx, db, src.Stream(), touched)
	if err == nil {
		err = heads.Post(ctx, c, hs)
	}
	if err != nil { // the next publish of the partition vouches for it
		log.Warn("the ledger heads of this replay are not in Kafka yet", zap.Error(err))
	}
}

// batchOfPointers is how many are written before they are waited for.
const batchOfPointers = 1000

// write writes the pointers: all of one input partition to one partition of the topic, in order. It returns where they end.
func write(ctx context.Context, own *config.Config, pointers []Pointer, partitions int, rep *Report) (map[int32]int64, error) {
	cl, err := kgo.NewClient(append(admin.Options(own), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.DefaultProduceTopic(own.Topics.Input))...)
	if err != nil {
		return nil, fmt.Errorf("make a producer: %w", err)
	}
	defer cl.Close()
	ends := map[int32]int64{}
	for chunk := range slices.Chunk(pointers, batchOfPointers) {
		records := make([]*kgo.Record, len(chunk))
		for i, p := range chunk {
			key := fmt.Appendf(nil, "%d/%d/%d", p.SourceID, p.Partition, p.Offset)
			records[i] = &kgo.Record{Partition: p.Partition % int32(partitions), Key: key, Value: p.encode()}
		}
		for _, r := range cl.ProduceSync(ctx, records...) {
			if r.Err != nil {
				return nil, fmt.Errorf("write pointers to %s: %w; run it again: what was written does nothing twice", own.Topics.Input, r.Err)
			}
			ends[r.Record.Partition] = max(ends[r.Record.Partition], r.Record.Offset+1)
			rep.Pointers++
		}
		failpoint.Hit(failpoint.ReplayWritten)
	}
	return ends, nil
}
