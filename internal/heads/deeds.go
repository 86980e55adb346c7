package heads

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/ledger"
)

// deedHeader has the ledger entry of a deed that moved the stored offset (an accepted loss, a reset), whole: Postgres may go back to before it, and
// nothing else would tell that the records it skipped were never to be published.
const deedHeader = "exactly-deed"

// lately is how many entries back PostNewest looks for deeds: workers may have gone on by the time the head of one is published.
const lately = 20

// PostNewest publishes the heads of the partitions' newest entries as Post does, and before them those of late deeds that moved the stored offset, each
// with its entry.
func PostNewest(ctx context.Context, c *config.Config, db Querier, s ledger.Stream, partitions []int32) error {
	rows, err := db.Query(ctx, `SELECT `+ledger.Columns+` FROM offset_ledger l WHERE source_id = $1 AND source_partition = ANY($2) AND kind IN ('accept_loss', 'reset')
		AND seq > (SELECT ledger_seq FROM partition_offsets p WHERE p.source_id = l.source_id AND p.source_partition = l.source_partition) - $3 ORDER BY source_partition, seq`,
		s.SourceID, partitions, lately)
	if err != nil {
		return fmt.Errorf("read the newest ledger entries: %w", err)
	}
	var hs []ledger.Head
	var beside [][]kgo.RecordHeader
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
		var e ledger.Entry
		hash, err := e.Scan(row)
		if err != nil {
			return struct{}{}, err
		}
		value, err := json.Marshal(&e)
		hs, beside = append(hs, s.Head(&e, hash)), append(beside, []kgo.RecordHeader{{Key: deedHeader, Value: value}})
		return struct{}{}, err
	})
	if err != nil {
		return fmt.Errorf("read the newest ledger entries: %w", err)
	}
	newest, err := Newest(ctx, db, s, partitions)
	if err != nil {
		return err
	}
	return post(ctx, c, append(hs, newest...), append(beside, make([][]kgo.RecordHeader, len(newest))...))
}

// Told is what the topic tells of one chain.
type Told struct {
	Seq   int64          // the highest of its heads
	Skips []ledger.Entry // deeds that moved the stored offset, in the order they stand there
}

// ReadTold reads what the topic tells of a stream, by source partition: in memory is a number a chain, and the deeds. A deed counts whose entry makes
// the hash that its head has; with keys, only if one of them signed it, from the first signed head of its chain on.
func ReadTold(ctx context.Context, c *config.Config, s ledger.Stream, keys []ed25519.PublicKey) (map[int32]*Told, error) {
	out := map[int32]*Told{}
	signed := map[int32]bool{}
	if c.Ledger.HeadsTopic == "" {
		return out, nil
	}
	err := each(ctx, c, 0, func(r *kgo.Record) {
		h, err := ledger.ParseHead(r.Value)
		if err != nil || string(r.Key) != string(h.RecordKey()) || h.Group != s.Group || h.Topic != s.Topic || h.SourceID != s.SourceID || h.TopicID != s.TopicID {
			return
		}
		signed[h.Partition] = signed[h.Partition] || len(h.Sig) > 0
		if len(keys) > 0 && signed[h.Partition] && h.Signature(keys) != nil {
			return
		}
		t := out[h.Partition]
		if t == nil {
			t = &Told{}
			out[h.Partition] = t
		}
		if r := h.Replaces; r != nil && t.Seq <= r.Seq {
			t.Seq = h.Seq
		}
		t.Seq = max(t.Seq, h.Seq)
		for _, header := range r.Headers {
			var e ledger.Entry
			if header.Key == deedHeader && json.Unmarshal(header.Value, &e) == nil && bytes.Equal(e.Hash(), h.Hash) && e.Partition == h.Partition && e.SourceID == h.SourceID {
				t.Skips = append(t.Skips, e)
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read ledger heads from %s: %w", c.Ledger.HeadsTopic, err)
	}
	return out, nil
}
