package engine

import (
	"context"
	cryptorand "crypto/rand"
	"math/rand/v2"
	"strconv"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

// prepJob is the records of one partition that one capture will take.
type prepJob struct {
	partition int32
	life      uint64
	epoch     int64
	from, to  int64 // from the stored offset the capture starts at
	records   []Record
	refused   map[int64]*Permanent // offsets that are dead letters without being handled
	marked    bool                 // say so before they are handled
	care      *Care                // they are handled with it: what the row keeps of it; nil: without
}

// outputShare is how many times Config.MaxBytes a capture may write: dead letters stand in two tables. Records that are small but make much, a replay's
// pointers, would else be bounded by nothing.
const outputShare = 2

// prepared is what came of the jobs. failed are partitions whose handler met a transient error at its first record.
type prepared struct {
	batches []*Batch
	failed  map[int32]prepFailure
}

type prepFailure struct {
	life uint64
	err  error
}

// preparer runs the handler over records: decode, validate, enrich, encode. It knows no store.
type preparer struct {
	h        Handler
	points   Pointing // the handler itself, if it is one; nil
	tables   []Table
	shape    *Shape
	sourceID int16
	salts    *rand.ChaCha8
	log      *zap.Logger
	panics   map[string]bool // stacks that were logged
	most     int             // bytes of output in one run, about; 0: no bound
	left     int             // of these
}

func newPreparer(h Handler, shape *Shape, sourceID int16) *preparer {
	p := &preparer{tables: h.Tables(), shape: shape, sourceID: sourceID, salts: newSalts(), log: zap.NewNop(), panics: map[string]bool{}}
	p.points, _ = h.(Pointing)
	p.h = Use(h, p.recovery)
	return p
}

// newSalts seeds the salts from the operating system: whoever does not know the seed can't tell the next salt from those before.
func newSalts() *rand.ChaCha8 {
	var seed [32]byte
	_, _ = cryptorand.Read(seed[:]) // never fails: it would end the program
	return rand.NewChaCha8(seed)
}

func (p *preparer) run(ctx context.Context, jobs []prepJob) prepared {
	var out prepared
	p.left = p.most
	for i := range jobs {
		b, err := p.batch(ctx, &jobs[i])
		if b != nil {
			p.left -= b.written()
		}
		putRecords(jobs[i].records)
		if b != nil {
			out.batches = append(out.batches, b)
		}
		if err != nil {
			if out.failed == nil {
				out.failed = map[int32]prepFailure{}
			}
			out.failed[jobs[i].partition] = prepFailure{jobs[i].life, err}
		}
	}
	return out
}

// batch returns what the records before the first transient error make, nil if there are none, and that error.
func (p *preparer) batch(ctx context.Context, j *prepJob) (*Batch, error) {
	b := &Batch{Partition: j.partition, Life: j.life, Epoch: j.epoch, From: j.from, To: j.from, LeaderEpoch: -1, Tables: make([][]byte, len(p.tables))}
	for i := range b.Tables {
		b.Tables[i] = getBytes()
	}
	if len(j.records) > 0 {
		b.arrived = j.records[0].arrived
	}
	if j.care != nil {
		b.careful, b.Care = true, *j.care
	}
	b.Messages = getMessages(len(j.records))
	out := &Out{b: b, shape: p.shape, sourceID: p.sourceID}
	prefix := p.shape.Input + "/" + strconv.Itoa(int(j.partition)) + "/"
	sources := make([]byte, 0, len(j.records)*(len(prefix)+12)) // one allocation for the exactly-source values of the whole batch
	digest := ledger.NewDigest()
	b.Outbox = getBytes()
	var m mark
	for i := range j.records {
		r := &j.records[i]
		b.mark(&m)
		at := len(sources)
		sources = strconv.AppendInt(append(sources, prefix...), r.Offset, 10)
		out.rec, out.seq, out.source, out.read, out.written, out.instead = r, 0, sources[at:len(sources):len(sources)], 0, 0, nil
		if err := p.call(ctx, j, r, out); err != nil {
			b.takeBack(&m)
			pe := asPermanent(err)
			if pe == nil {
				if b.Records == 0 {
					b = nil
				}
				return p.finish(b, digest), err
			}
			out.seq = 0
			if err := deadLetter(out, pe); err != nil {
				b.takeBack(&m)
				return p.finish(b, digest), err
			}
		}
		p.settle(out, b.Messages[m.messages:], digest)
		b.Records++
		b.To, b.LeaderEpoch = r.Offset+1, r.LeaderEpoch
		b.Bytes += r.Size()
		if p.most > 0 && b.written() >= p.left && i+1 < len(j.records) {
			b.rest = append(getRecords(), j.records[i+1:]...)
			break
		}
	}
	return p.finish(b, digest), nil
}

// settle encodes the outbox rows of a record whose messages are what they will be, and adds both to the digest.
func (p *preparer) settle(out *Out, messages []outbox.Message, digest *ledger.Digest) {
	r, b := out.rec, out.b
	var salt ledger.Salt
	if len(messages) > 0 {
		_, _ = p.salts.Read(salt[:]) // never fails
	}
	hash := [32]byte(digest.Record(salt, r.Offset, r.TimestampMs, r.Key, r.Value, r.Headers))
	for i := range messages {
		b.Outbox = outbox.AppendTuple(b.Outbox, p.sourceID, b.Partition, &messages[i], salt[:], hash[:])
		digest.Message(&messages[i])
	}
	b.counted()
	if out.read != 0 || out.written != 0 {
		b.made.add(out.read, out.written)
	}
}

// finish closes the digest once the last record is settled.
func (p *preparer) finish(b *Batch, digest *ledger.Digest) *Batch {
	if b == nil || b.Records == 0 {
		return nil
	}
	b.Care = b.Care.Behind(b.To)
	b.Digest, b.Schemas = digest.Sum(), b.made.String()
	b.Bytes += b.written()
	return b
}

// written is what the capture writes, in bytes.
func (b *Batch) written() int {
	n := len(b.Outbox) + len(b.DeadRows)
	for _, t := range b.Tables {
		n += len(t)
	}
	return n
}

// DeadLetterCopySQL opens the COPY that a batch's DeadRows go to.
const DeadLetterCopySQL = `COPY dead_letters (source_id, source_partition, source_offset, error_class, error_stage, error_message, key, value, headers) FROM STDIN (FORMAT binary)`

// deadLetter adds the record, untouched, to the dead letters of both sinks. The headers are Kafka Connect's (KIP-298), and ours.
func deadLetter(o *Out, e *Permanent) error {
	l := o.instead
	if l == nil {
		l = &Letter{Key: o.rec.Key, Value: o.rec.Value, Headers: o.rec.Headers}
	}
	hs := make([]outbox.Header, 0, len(l.Headers)+8+len(l.Behind))
	hs = append(hs, l.Headers...)
	hs = append(hs, deadLetterHeaders(o, e, o.source)...)
	hs = append(hs, l.Behind...)
	// First what may fail: a row of dead_letters is not taken back.
	if big := o.shape.unpublishable(&outbox.Message{SourceOffset: o.rec.Offset, Topic: o.shape.DLQ, Key: l.Key, Value: l.Value, Headers: hs}); big != nil {
		return big
	}
	if err := o.Event(o.shape.DLQ, l.Key, l.Value, hs); err != nil {
		return err
	}
	if l.Keep != nil {
		l.Keep(o)
	}
	if o.b.classes == nil {
		o.b.classes = map[string]int64{}
	}
	o.b.classes[e.Class]++
	o.deadRow(e, l.Key, l.Value, l.Headers)
	return nil
}
