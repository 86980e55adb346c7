package ledger

import "time"

// Line is an entry as `ledger show --json` prints it and archives keep it, one a line: the columns' names, bytes in hexadecimal, the time in
// microseconds since the Unix epoch, as the hash has it. doc/verify_ledger.py reads it.
type Line struct {
	SourceID    int16  `json:"source_id"`
	Partition   int32  `json:"source_partition"`
	Seq         int64  `json:"seq"`
	Kind        Kind   `json:"kind"`
	From        int64  `json:"from_offset"`
	To          int64  `json:"to_offset"`
	Records     int64  `json:"records"`
	Rows        int64  `json:"rows"`
	DeadLetters int64  `json:"dead_letters"`
	Events      int64  `json:"events"`
	Digest      Hex    `json:"digest"`
	PrevHash    Hex    `json:"prev_hash"`
	Epoch       int64  `json:"epoch"`
	Worker      string `json:"worker"`
	Why         string `json:"why"`
	Who         string `json:"who"`
	Build       string `json:"build"`
	Schemas     string `json:"schemas"`
	Geo         string `json:"geo"`
	CommittedAt int64  `json:"committed_at_us"`
	Hash        Hex    `json:"hash"`
	CapturedAt  int64  `json:"captured_at_us,omitempty"` // by Postgres' clock, in archives only; not hashed
}

// Line is the entry and the hash in its row as a line. capturedAt: zero if it is not to be there.
func (e *Entry) Line(hash []byte, capturedAt time.Time) Line {
	l := Line{
		SourceID: e.SourceID, Partition: e.Partition, Seq: e.Seq, Kind: e.Kind, From: e.From, To: e.To, Records: e.Records, Rows: e.Rows,
		DeadLetters: e.DeadLetters, Events: e.Events, Digest: e.Digest, PrevHash: e.PrevHash, Epoch: e.Epoch, Worker: e.Worker, Why: e.Why,
		Who: e.Who, Build: e.Build, Schemas: e.Schemas, Geo: e.Geo, CommittedAt: e.CommittedAt.UnixMicro(), Hash: hash,
	}
	if !capturedAt.IsZero() {
		l.CapturedAt = capturedAt.UnixMicro()
	}
	return l
}
