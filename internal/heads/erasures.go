package heads

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/ledger"
)

// Erasure is a ledger entry of kind erase and the source offsets it is about. Kafka keeps it whole beside the entry's head, in a header of the same
// record, for Postgres may go back to before it: offsets are nobody's data.
type Erasure struct {
	Entry   ledger.Entry `json:"entry"`
	Offsets []int64      `json:"offsets"`
}

const erasureHeader = "exactly-erasure"

// PostErasures publishes the heads of erasures as Post does, each with its erasure.
func PostErasures(ctx context.Context, c *config.Config, s ledger.Stream, es []Erasure) error {
	hs := make([]ledger.Head, len(es))
	beside := make([][]kgo.RecordHeader, len(es))
	for i := range es {
		value, err := json.Marshal(&es[i])
		if err != nil {
			return fmt.Errorf("publish ledger heads: %w", err)
		}
		hs[i] = s.Head(&es[i].Entry, es[i].Entry.Hash())
		beside[i] = []kgo.RecordHeader{{Key: erasureHeader, Value: value}}
	}
	return post(ctx, c, hs, beside)
}

// Erasures reads the whole topic and returns a stream's erasures, in the order they stand there. The entry of each makes the hash that its head
// has; what does not is returned as damaged. With keys, so is one whose head none of them signed, from the first signed head of its chain on.
func Erasures(ctx context.Context, c *config.Config, s ledger.Stream, keys []ed25519.PublicKey) ([]Erasure, []Damaged, error) {
	signed := map[int32]bool{}
	var found []Erasure
	var damaged []Damaged
	err := each(ctx, c, 0, func(r *kgo.Record) {
		h, err := ledger.ParseHead(r.Value)
		if err != nil || h.Group != s.Group || h.Topic != s.Topic || h.SourceID != s.SourceID || h.TopicID != s.TopicID {
			return
		}
		signed[h.Partition] = signed[h.Partition] || len(h.Sig) > 0
		if h.Kind != ledger.Erase {
			return
		}
		if len(keys) > 0 && signed[h.Partition] {
			if err := h.Signature(keys); err != nil {
				damaged = append(damaged, Damaged{r.Partition, r.Offset, fmt.Sprintf("the head of an erasure %v", err)})
				return
			}
		}
		for _, header := range r.Headers {
			if header.Key != erasureHeader {
				continue
			}
			var e Erasure
			if err := json.Unmarshal(header.Value, &e); err != nil || !bytes.Equal(e.Entry.Hash(), h.Hash) || e.Entry.Partition != h.Partition || e.Entry.SourceID != h.SourceID {
				damaged = append(damaged, Damaged{r.Partition, r.Offset, "its erasure is not the one that its head vouches for"})
				continue
			}
			found = append(found, e)
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read erasures from %s: %w", c.Ledger.HeadsTopic, err)
	}
	return found, damaged, nil
}
