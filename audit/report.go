package audit

import (
	"fmt"
	"strings"
	"time"
)

// Totals count what was read and compared, over all source partitions asked for.
type Totals struct {
	Input       int64 `json:"input"`          // committed input records below the stored offsets
	Rows        int64 `json:"rows"`           // rows in enriched_clicks
	Outbox      int64 `json:"outbox"`         // messages in outbox
	DeadLetters int64 `json:"dead_letters"`   // rows in dead_letters
	Events      int64 `json:"events"`         // committed records in the output topic, of offsets below the stored ones
	DLQ         int64 `json:"dlq"`            // the same in the DLQ topic
	Owed        int64 `json:"owed"`           // captured, not yet published: no error while workers are working
	Waiting     int64 `json:"waiting"`        // input offsets from the stored offsets to the stable end, markers included; with Settled records only
	Later       int64 `json:"later"`          // events captured after the snapshot, covered by the stored offset read at the end
	OutOfReach  int64 `json:"out_of_reach"`   // records whose counterpart retention has removed: not compared
	Ledger      int64 `json:"ledger_entries"` // entries read
	OtherSource int64 `json:"other_source"`   // Postgres rows that belong to another source: another audit's
}

// PartitionReport is one source partition.
type PartitionReport struct {
	Partition   int32 `json:"partition"`
	VouchedFrom int64 `json:"vouched_from"` // offsets below can't be vouched for: not read by the pipeline, or removed by retention
	Stored      int64 `json:"stored"`       // S, in the snapshot
	Group       int64 `json:"group"`        // G, read before S; -1: none
	StableEnd   int64 `json:"stable_end"`   // of the input, read after S
	Input       int64 `json:"input"`
	Rows        int64 `json:"rows"`
	Outbox      int64 `json:"outbox"`
	DeadLetters int64 `json:"dead_letters"`
	Events      int64 `json:"events"`
	DLQ         int64 `json:"dlq"`
	Owed        int64 `json:"owed"`
	Waiting     int64 `json:"waiting"`
	Later       int64 `json:"later"`
	OutOfReach  int64 `json:"out_of_reach"`
	Ledger      int64 `json:"ledger_entries"`
	Findings    int64 `json:"findings"`
}

// Report is what an audit says.
type Report struct {
	Settled    bool                     `json:"settled"`
	Totals     Totals                   `json:"totals"`
	Found      map[Class]int64          `json:"found"`   // every class, zeros too
	BySink     map[Class]map[Sink]int64 `json:"by_sink"` // only what was found
	Partitions []PartitionReport        `json:"partitions"`
	Findings   []Finding                `json:"findings"` // some of each class; Found counts all
	Notes      []string                 `json:"notes"`    // what it can't vouch for, and why
	Took       time.Duration            `json:"took_ns"`
	Verdict    string                   `json:"verdict"`
}

// Clean is true if nothing at all was found.
func (r *Report) Clean() bool {
	for _, n := range r.Found {
		if n != 0 {
			return false
		}
	}
	return true
}

func (r *run) report(begun time.Time) *Report {
	rep := &Report{
		Settled: r.opts.Settled, Totals: r.totals, Found: map[Class]int64{}, BySink: r.findings.counts,
		Findings: r.findings.some(), Notes: []string{}, Partitions: []PartitionReport{},
	}
	if rep.Findings == nil {
		rep.Findings = []Finding{}
	}
	for _, c := range Classes {
		rep.Found[c] = r.findings.total(c)
	}
	for _, p := range r.sorted() {
		s := p.stat
		s.Partition, s.VouchedFrom, s.Stored, s.Group, s.StableEnd = p.id, p.from, p.stored, p.group, p.stableEnd
		s.Findings = r.findings.byPart[p.id]
		rep.Partitions = append(rep.Partitions, s)
		t := &rep.Totals
		t.Input += s.Input
		t.Rows += s.Rows
		t.Outbox += s.Outbox
		t.DeadLetters += s.DeadLetters
		t.Events += s.Events
		t.DLQ += s.DLQ
		t.Owed += s.Owed
		t.Waiting += s.Waiting
		t.Later += s.Later
		t.OutOfReach += s.OutOfReach
		t.Ledger += s.Ledger
		if p.from > p.begin && p.stored > p.begin {
			rep.Notes = append(rep.Notes, fmt.Sprintf("%s/%d: retention removed the input below offset %d; vouched for from there", r.opts.Input, p.id, p.from))
		} else if p.begin > 0 {
			rep.Notes = append(rep.Notes, fmt.Sprintf("%s/%d: started at offset %d, by its ledger; what is below was never to be read", r.opts.Input, p.id, p.begin))
		}
		if p.group < 0 && p.stored > p.begin {
			rep.Notes = append(rep.Notes, fmt.Sprintf("%s/%d: the group has no committed offset; no event is demanded", r.opts.Input, p.id))
		}
		if r.unstable[p.id] {
			rep.Notes = append(rep.Notes, fmt.Sprintf("%s/%d: a transaction holds the group offset; the last stable one, %d, was taken", r.opts.Input, p.id, p.group))
		}
	}
	if r.totals.OtherSource > 0 {
		rep.Notes = append(rep.Notes, fmt.Sprintf("%d Postgres rows belong to other sources and were left out", r.totals.OtherSource))
	}
	rep.Took = time.Since(begun)
	rep.Verdict = rep.verdict()
	return rep
}

func (r *Report) verdict() string {
	if r.Clean() && r.Totals.Input == 0 { // nothing wrong with nothing: no proof
		return "clean, but nothing was captured yet"
	}
	if r.Clean() {
		s := fmt.Sprintf("clean: each of the %d input records captured is in Postgres once and in Kafka once, and both say the same", r.Totals.Input)
		if r.Totals.Owed > 0 {
			s = fmt.Sprintf("clean: each of the %d input records captured is in Postgres once, Kafka is still owed %d and has the others once, and both say the same", r.Totals.Input, r.Totals.Owed)
		}
		if r.Totals.Waiting > 0 {
			s += fmt.Sprintf("; up to %d more wait to be captured", r.Totals.Waiting)
		}
		return s
	}
	var parts []string
	for _, c := range Classes {
		if n := r.Found[c]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, c))
		}
	}
	return "NOT clean: " + strings.Join(parts, ", ")
}
