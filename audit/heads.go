package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// headJSON is a head of a ledger's chain as it stands in Kafka, in the order of its fields. Written here once more on purpose.
type headJSON struct {
	V         int           `json:"v"`
	SourceID  int16         `json:"source_id"`
	Topic     string        `json:"topic"`
	TopicID   string        `json:"topic_id"`
	Group     string        `json:"group"`
	Partition int32         `json:"partition"`
	Seq       int64         `json:"seq"`
	Hash      string        `json:"hash"`
	To        int64         `json:"to"`
	At        string        `json:"at"`
	Kind      string        `json:"kind"`
	Replaces  *replacedHead `json:"replaces,omitempty"`
	Key       string        `json:"key,omitempty"`
	Sig       []byte        `json:"sig,omitempty"`
}

type replacedHead struct {
	Seq  int64  `json:"seq"`
	Hash string `json:"hash"`
	From int64  `json:"from,omitempty"`
}

// first is the lowest seq that the entry of seq own replaces.
func (r *replacedHead) first(own int64) int64 {
	if r.From > 0 {
		return min(r.From, own)
	}
	return own
}

// knownHead is a head that something other than Postgres remembers.
type knownHead struct {
	partition int32
	seq, to   int64
	hash      []byte
	where     string // for people
	kind      string
	replaces  *replacedHead
	anchor    bool   // it is a line of an anchor file
	at        string // when it was written: RFC 3339, UTC
}

// mostHeads is how many heads of a partition are held against the ledger: the newest, and some of those before, thinned out. One that
// was rewritten changes every hash behind it, so that the newest tells; the others tell since when.
const mostHeads = 512

// headsOf are the heads of one partition, in the order of the log.
type headsOf struct {
	all  []knownHead
	skip int // of so many, one is kept
	n    int
}

func (h *headsOf) add(k knownHead) {
	h.n++
	if k.replaces != nil || len(h.all) == 0 || h.skip <= 1 || h.n%h.skip == 0 {
		h.all = append(h.all, k)
	} else {
		h.all[len(h.all)-1] = k // the newest is always there
	}
	if len(h.all) < mostHeads {
		return
	}
	h.skip = max(2, h.skip*2)
	kept := h.all[:0]
	for i, k := range h.all {
		if i%2 == 1 || i == len(h.all)-1 || k.replaces != nil {
			kept = append(kept, k)
		}
	}
	h.all = kept
}

// readHeads holds the heads that are in Kafka against the ledger as it is now: what Kafka has was in Postgres before.
func (r *run) readHeads(ctx context.Context) error {
	if r.opts.Heads == "" {
		return nil
	}
	topics, err := r.kafka.adm.ListTopics(ctx, r.opts.Heads)
	if err == nil {
		err = topics.Error()
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		r.note("no topic %s: nothing but Postgres vouches for the ledger", r.opts.Heads)
		return nil
	}
	if err != nil {
		return fmt.Errorf("describe topic %s: %w", r.opts.Heads, err)
	}
	r.kafka.topics[r.opts.Heads] = topics[r.opts.Heads]
	starts, err := r.kafka.offsets(ctx, "start offsets", r.kafka.adm.ListStartOffsets, r.opts.Heads)
	if err != nil {
		return err
	}
	ends, err := r.kafka.offsets(ctx, "stable ends", r.kafka.adm.ListCommittedOffsets, r.opts.Heads)
	if err != nil {
		return err
	}
	heads := map[int32]*headsOf{}
	for n, end := range ends[r.opts.Heads] {
		if at := starts[r.opts.Heads][n]; at > 0 {
			r.found(Missing, Heads, -1, -1, &At{r.opts.Heads, n, at}, "%s/%d begins at offset %d: heads were removed, though they are kept for ever", r.opts.Heads, n, at)
		}
		from := starts[r.opts.Heads][n]
		if r.earlier != nil {
			from = max(from, r.earlier.heads[n])
		}
		r.headsRead[n] = max(from, end)
		_, err := r.kafka.read(ctx, r.opts.Heads, n, from, end, func(recs []*kgo.Record) error {
			for _, rec := range recs {
				r.head(heads, rec)
			}
			r.tell(len(recs))
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, p := range r.sorted() {
		if h := heads[p.id]; h != nil {
			if err := r.checkHeads(ctx, p, h.all); err != nil {
				return err
			}
		} else if p.seq > 0 && r.earlier == nil {
			r.note("%s/%d: no head of its ledger is in Kafka yet", r.opts.Input, p.id)
		}
	}
	return nil
}

// head takes one record of the topic of heads.
func (r *run) head(heads map[int32]*headsOf, rec *kgo.Record) {
	at := &At{rec.Topic, rec.Partition, rec.Offset}
	var h headJSON
	err := json.Unmarshal(rec.Value, &h)
	var hash []byte
	if err == nil {
		hash, err = hex.DecodeString(h.Hash)
	}
	if err != nil || h.V != 1 || len(hash) == 0 {
		r.found(Undecodable, Heads, -1, -1, at, "%s is no head of a ledger", at)
		return
	}
	if r.replays.run != nil && h.Group == r.replays.opts.Group {
		r, heads = r.replays.run, r.replays.heads
	}
	if h.Group != r.opts.Group || h.Topic != r.opts.Input || h.SourceID != r.source || !r.wants(h.Partition) {
		return
	}
	if r.opts.PublicKey != nil && !h.signedBy(r.opts.PublicKey) {
		r.findings.add(Finding{Class: LedgerChain, Sink: Heads, Partition: h.Partition, Offset: -1, Seq: h.Seq, At: at, Says: fmt.Sprintf("heads: %s, of seq %d, is not signed with the given key", at, h.Seq)})
	}
	p := heads[h.Partition]
	if p == nil {
		p = &headsOf{}
		heads[h.Partition] = p
	}
	p.add(knownHead{h.Partition, h.Seq, h.To, hash, at.String() + ", written " + h.At, h.Kind, h.Replaces, false, h.At})
}

// encodeHead is a head as it stands in a record.
func encodeHead(h headJSON) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(h) // there is nothing in it that could fail
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// signedBy checks the signature over the head without its key and signature.
func (h headJSON) signedBy(key ed25519.PublicKey) bool {
	sig := h.Sig
	h.Key, h.Sig = "", nil
	return ed25519.Verify(key, encodeHead(h), sig)
}

// checkHeads holds heads, in the order they were written, against the ledger as it is now.
func (r *run) checkHeads(ctx context.Context, p *partition, heads []knownHead) error {
	now, err := r.hashesNow(ctx, p, heads)
	if err != nil {
		return err
	}
	good := int64(0) // the newest entry that is as it was
	heals := r.heals[p.id]
	var bent []knownHead
	base, archived := r.newestArchive(p.id)
	for _, h := range slices.Backward(heads) {
		if archived && h.seq < base.toSeq { // its entry is in a file; whatever follows pins it
			continue
		}
		switch hash, there := now[h.seq]; {
		case there && bytes.Equal(hash, h.hash):
			good = max(good, h.seq)
			if h.replaces != nil && (h.kind == "heal" || h.kind == "start") { // a start: of a chain that a heal began anew
				heals = append(heals, h)
			}
		case slices.ContainsFunc(heals, func(later knownHead) bool {
			return later.replaces.first(later.seq) <= h.seq && h.seq <= later.replaces.Seq && !h.after(&later)
		}): // a heal has put another entry there, and said so
		default:
			bent = append(bent, h)
		}
	}
	r.heals[p.id] = heals
	p.stat.HeadSeq = max(p.stat.HeadSeq, good)
	if len(bent) == 0 {
		return nil
	}
	first := slices.MinFunc(bent, func(a, b knownHead) int { return int(a.seq - b.seq) })
	newest := slices.MaxFunc(bent, func(a, b knownHead) int { return int(a.seq - b.seq) })
	since := fmt.Sprintf("the entries up to seq %d are as they were", good)
	if good == 0 || good > first.seq {
		since = "which of the entries before are as they were is not told by any"
	}
	if _, there := now[newest.seq]; !there {
		r.headFound(p, newest, "seq %d is not in the ledger, though its head is in %s: the ledger's tail was removed (%s)", newest.seq, newest.where, since)
		return nil
	}
	r.headFound(p, first, "seq %d has another hash in the ledger than in %s: one of the two was rewritten (%s)", first.seq, first.where, since)
	return nil
}

// after says whether an anchor's line was written after a head, by the second: what a heal has replaced was noted before it. Heads in Kafka stand in order.
func (h *knownHead) after(heal *knownHead) bool {
	mine, err := time.Parse(time.RFC3339, h.at)
	its, err2 := time.Parse(time.RFC3339, heal.at)
	return h.anchor && err == nil && err2 == nil && mine.After(its)
}

func (r *run) headFound(p *partition, h knownHead, format string, a ...any) {
	r.findings.add(Finding{Class: LedgerChain, Sink: Heads, Partition: p.id, Offset: -1, Seq: h.seq, Says: fmt.Sprintf("heads: "+format, a...)})
}

// hashesNow are the hashes of those entries in the ledger, by seq.
func (r *run) hashesNow(ctx context.Context, p *partition, heads []knownHead) (map[int64][]byte, error) {
	conn, err := pgx.Connect(ctx, r.opts.DSN) // heads may be of captures after the snapshot
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	seqs := make([]int64, len(heads))
	for i := range heads {
		seqs[i] = heads[i].seq
	}
	out := map[int64][]byte{}
	if a, ok := r.newestArchive(p.id); ok {
		out[a.toSeq] = a.hash
	}
	var seq int64
	var hash []byte
	// What the snapshot has is read there: it may have been archived since.
	for db, where := range map[*pgx.Conn]string{r.pg.main: ` AND seq <= $4`, conn: ` AND seq > $4`} {
		rows, _ := db.Query(ctx, `SELECT seq, hash FROM offset_ledger WHERE source_id = $1 AND source_partition = $2 AND seq = ANY($3)`+where, r.source, p.id, seqs, p.seq)
		if _, err := pgx.ForEachRow(rows, []any{&seq, &hash}, func() error { out[seq] = bytes.Clone(hash); return nil }); err != nil {
			return nil, fmt.Errorf("offset_ledger: %w", err)
		}
	}
	return out, nil
}

// LoadPublicKey reads a key that heads must be signed with: Ed25519, PKIX, PEM.
func LoadPublicKey(path string) (ed25519.PublicKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("public key %s: must be a PEM file with a PUBLIC KEY: exactly ledger keygen makes one", path)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	public, ok := key.(ed25519.PublicKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("public key %s: must be an Ed25519 key", path)
	}
	return public, nil
}
