// Package heads owns the topic of ledger heads for those who are no workers: publishing the head of a deed after its commit, reading all that
// is there, and holding them against the ledger.
//
// It promises that what it returns was committed, in the order of the topic, up to the end the topic had when it was asked. It never
// writes to Postgres, nor changes a head.
package heads

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/ledger"
)

// postTimeout bounds Post: a deed is done by then, and who waits is a person.
const postTimeout = 15 * time.Second

// Querier is a pgx pool, connection or transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Newest are the heads of the partitions' newest entries, of all if partitions is nil.
func Newest(ctx context.Context, db Querier, s ledger.Stream, partitions []int32) ([]ledger.Head, error) {
	rows, err := db.Query(ctx, `SELECT `+ledger.Columns+` FROM offset_ledger l WHERE source_id = $1 AND ($2::int[] IS NULL OR source_partition = ANY($2))
		AND seq = (SELECT ledger_seq FROM partition_offsets p WHERE p.source_id = l.source_id AND p.source_partition = l.source_partition)
		ORDER BY source_partition`, s.SourceID, partitions)
	if err != nil {
		return nil, fmt.Errorf("read the newest ledger entries: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Head, error) {
		var e ledger.Entry
		hash, err := e.Scan(row)
		return s.Head(&e, hash), err
	})
	if err != nil {
		return nil, fmt.Errorf("read the newest ledger entries: %w", err)
	}
	return out, nil
}

// Post signs the heads, if the settings name a key, and publishes them, all or an error: some may be there then. Without a topic for them it
// does nothing.
func Post(ctx context.Context, c *config.Config, hs []ledger.Head) error {
	return post(ctx, c, hs, nil)
}

// post publishes each head with the record headers beside it.
func post(ctx context.Context, c *config.Config, hs []ledger.Head, beside [][]kgo.RecordHeader) error {
	if c.Ledger.HeadsTopic == "" || len(hs) == 0 {
		return nil
	}
	what := func(err error) error { return fmt.Errorf("publish ledger heads to %s: %w", c.Ledger.HeadsTopic, err) }
	signer, err := ledger.LoadSigner(c.Ledger.SigningKeyFile)
	if err != nil {
		return what(fmt.Errorf("ledger.signing_key_file: %w", err))
	}
	cl, err := kgo.NewClient(append(admin.Options(c), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.DefaultProduceTopic(c.Ledger.HeadsTopic))...)
	if err != nil {
		return what(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	records := make([]*kgo.Record, len(hs))
	for i := range hs {
		h := hs[i]
		signer.Sign(&h)
		records[i] = &kgo.Record{Key: h.RecordKey(), Value: h.Encode()}
		if beside != nil {
			records[i].Headers = beside[i]
		}
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return what(err)
	}
	return nil
}

// Damaged is a record of the topic that is no head of ours.
type Damaged struct {
	Partition int32 // of the heads topic
	Offset    int64
	Why       string
}

// Read reads the whole topic and returns the heads of one stream, by source partition, in the order they stand there; and what is no head.
func Read(ctx context.Context, c *config.Config, s ledger.Stream) (map[int32][]ledger.Head, []Damaged, error) {
	found := map[int32][]ledger.Head{}
	var damaged []Damaged
	err := each(ctx, c, 0, func(r *kgo.Record) {
		h, err := ledger.ParseHead(r.Value)
		switch {
		case err != nil:
			damaged = append(damaged, Damaged{r.Partition, r.Offset, err.Error()})
		case string(r.Key) != string(h.RecordKey()):
			damaged = append(damaged, Damaged{r.Partition, r.Offset, "its key is another chain's"})
		case h.Group == s.Group && h.Topic == s.Topic && h.SourceID == s.SourceID && h.TopicID == s.TopicID:
			found[h.Partition] = append(found[h.Partition], h)
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read ledger heads from %s: %w", c.Ledger.HeadsTopic, err)
	}
	return found, damaged, nil
}

// Last are the newest heads of one stream, by source partition, among the last records of each partition of the topic: of chains that something was
// published of lately.
func Last(ctx context.Context, c *config.Config, s ledger.Stream, records int64) (map[int32]ledger.Head, error) {
	found := map[int32]ledger.Head{}
	err := each(ctx, c, records, func(r *kgo.Record) {
		h, err := ledger.ParseHead(r.Value)
		if err == nil && h.Group == s.Group && h.Topic == s.Topic && h.SourceID == s.SourceID && h.TopicID == s.TopicID {
			found[h.Partition] = h
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read ledger heads from %s: %w", c.Ledger.HeadsTopic, err)
	}
	return found, nil
}

// each reads every committed record, or about the last ones of each partition only (0: all), to the stable end that each partition has now.
func each(ctx context.Context, c *config.Config, last int64, f func(*kgo.Record)) error {
	topic := c.Ledger.HeadsTopic
	cl, err := kgo.NewClient(append(admin.Options(c), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return err
	}
	ends, err := adm.ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	left := map[int32]int64{}
	from := map[int32]kgo.Offset{}
	ends.Each(func(e kadm.ListedOffset) {
		if start, _ := starts.Lookup(e.Topic, e.Partition); e.Offset > start.Offset {
			first := start.Offset
			if last > 0 {
				first = max(first, e.Offset-last)
			}
			left[e.Partition], from[e.Partition] = e.Offset, kgo.NewOffset().At(first)
		}
	})
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: from})
	for len(left) > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err0(); err != nil {
			return err
		}
		for _, e := range fs.Errors() {
			return fmt.Errorf("%s/%d: %w", e.Topic, e.Partition, e.Err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			end, open := left[r.Partition]
			if !open || r.Offset >= end {
				return
			}
			if !r.Attrs.IsControl() {
				f(r)
			}
			if r.Offset+1 >= end {
				delete(left, r.Partition)
			}
		})
	}
	return nil
}
