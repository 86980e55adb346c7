package txn

import (
	"time"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

// headEvery is how often a partition's head is published at most: often enough that little of a chain is without a witness, seldom enough
// that a topic which is kept for ever stays small.
const headEvery = time.Second

// due are the heads that go along with the items: of each partition the newest, unless one went less than headEvery ago.
func (p *Publisher) due(items []engine.Item) []*ledger.Head {
	if p.HeadsTopic == "" {
		return nil
	}
	var due []*ledger.Head
	now := time.Now()
	for i := range items {
		h := items[i].Head
		if h == nil || now.Sub(p.published[h.Partition]) < headEvery {
			continue
		}
		known := false
		for j, d := range due { // items stand in the order of capture
			if d.Partition == h.Partition {
				due[j], known = h, true
			}
		}
		if !known {
			due = append(due, h)
		}
	}
	return due
}

// head is the head as a message. It has no source: no audit or scan takes it for an event.
func (p *Publisher) head(h *ledger.Head) *outbox.Message {
	signed := *h
	p.Signer.Sign(&signed)
	return &outbox.Message{Topic: p.HeadsTopic, TimestampMs: time.Now().UnixMilli(), Key: signed.RecordKey(), Value: signed.Encode()}
}

// told notes heads whose transaction was committed.
func (p *Publisher) told(heads []*ledger.Head) {
	if len(heads) > 0 && p.published == nil {
		p.published = map[int32]time.Time{}
	}
	for _, h := range heads {
		p.published[h.Partition] = time.Now()
	}
}
