package audit

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// anchored is a line of an anchor file: a head kept where neither a DBA nor a Kafka admin can reach it.
type anchored struct {
	V         int    `json:"v"`
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	SourceID  int16  `json:"source_id"`
	Partition int32  `json:"partition"`
	Seq       int64  `json:"seq"`
	Hash      string `json:"hash"`
	To        int64  `json:"to"`
	WrittenAt string `json:"written_at"`
	line      int
}

// checkAnchor holds the heads in the anchor file against the ledger. No file yet: nothing to check.
func (r *run) checkAnchor(ctx context.Context) error {
	if r.opts.Anchor == "" {
		return nil
	}
	lines, err := readAnchor(r.opts.Anchor)
	if err != nil {
		return err
	}
	heads := map[int32]*headsOf{}
	for _, a := range lines {
		if a.Group != r.opts.Group || a.Topic != r.opts.Input || a.SourceID != r.source || !r.wants(a.Partition) {
			continue
		}
		hash, err := hex.DecodeString(a.Hash)
		if err != nil || a.V != 1 {
			return fmt.Errorf("anchor file %s, line %d: not a head this program reads", r.opts.Anchor, a.line)
		}
		p := heads[a.Partition]
		if p == nil {
			p = &headsOf{}
			heads[a.Partition] = p
		}
		p.add(knownHead{partition: a.Partition, seq: a.Seq, to: a.To, hash: hash, where: fmt.Sprintf("the anchor file, line %d, written %s", a.line, a.WrittenAt), anchor: true, at: a.WrittenAt})
		r.anchors++
	}
	for n, h := range heads {
		if err := r.checkHeads(ctx, r.part(n), h.all); err != nil {
			return err
		}
	}
	return nil
}

func readAnchor(path string) ([]anchored, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the anchor file: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	var out []anchored
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		a := anchored{line: n}
		if err := json.Unmarshal(sc.Bytes(), &a); err != nil {
			return nil, fmt.Errorf("anchor file %s, line %d: %w", path, n, err)
		}
		out = append(out, a)
	}
	if err := sc.Err(); err != nil { // what is behind it would not be checked
		return nil, fmt.Errorf("anchor file %s, line %d: %w", path, len(out)+1, err)
	}
	return out, nil
}

// writeAnchor appends the heads of this audit to the anchor file, if nothing is wrong with the ledger: it is only ever added to.
func (r *run) writeAnchor() error {
	if r.opts.Anchor == "" {
		return nil
	}
	if r.findings.total(LedgerChain)+r.findings.total(LedgerGap)+r.findings.total(LedgerDigest) > 0 {
		r.note("the anchor file was not added to: something is wrong with the ledger")
		return nil
	}
	f, err := os.OpenFile(r.opts.Anchor, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("open the anchor file: %w", err)
	}
	defer f.Close() //nolint:errcheck // synced below
	enc := json.NewEncoder(f)
	for _, p := range r.sorted() {
		if p.seq == 0 {
			continue
		}
		a := anchored{V: 1, Group: r.opts.Group, Topic: r.opts.Input, SourceID: r.source, Partition: p.id, Seq: p.seq, Hash: hex.EncodeToString(p.head), To: p.stored,
			WrittenAt: time.Now().UTC().Format(time.RFC3339)}
		if err := enc.Encode(a); err != nil {
			return fmt.Errorf("write the anchor file: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write the anchor file: %w", err)
	}
	r.note("anchor file: %d heads checked, those of now added", r.anchors)
	return nil
}
