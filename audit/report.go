package audit

import (
	"encoding/hex"
	"fmt"
	"slices"
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
	OutOfReach  int64 `json:"out_of_reach"`   // records whose input or event retention has removed: held against what is left
	Ledger      int64 `json:"ledger_entries"` // entries read
	Counted     int64 `json:"counted"`        // sum of click_counts, of what says to be counted
	OtherSource int64 `json:"other_source"`   // Postgres rows that belong to another source: another audit's
}

// PartitionReport is one source partition.
type PartitionReport struct {
	Partition   int32 `json:"partition"`
	VouchedFrom int64 `json:"vouched_from"` // from here on everything is held against the input; below, it was not read by the pipeline, or its retention is over
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
	Erased      int64 `json:"erased"` // records whose data was blanked, by an entry of the ledger
	Findings    int64 `json:"findings"`

	// From where on each side is there; what was dropped on purpose, or expired, is below. Below vouched_from they are held against each other, not
	// against the input.
	RowsFrom        int64 `json:"rows_from"`
	DeadLettersFrom int64 `json:"dead_letters_from"`
	OutboxFrom      int64 `json:"outbox_from"`
	EventsFrom      int64 `json:"events_from"` // source offsets
	DLQFrom         int64 `json:"dlq_from"`

	Coverage   []Coverage `json:"coverage"`
	LedgerSeq  int64      `json:"ledger_seq"`       // of its newest entry, in the snapshot
	LedgerHead string     `json:"ledger_head"`      // that entry's hash, hexadecimal
	Verified   int64      `json:"verified_through"` // below it everything from vouched_from on is proven in both sinks
	HeadSeq    int64      `json:"head_seq"`         // newest entry that a head in Kafka or an anchor vouches for; 0: none
}

// Deed is a ledger entry that is no capture: what somebody did, or where a partition was started. It stays in every report for ever.
type Deed struct {
	Partition int32     `json:"partition"`
	Seq       int64     `json:"seq"`
	Kind      string    `json:"kind"`
	From      int64     `json:"from"`
	To        int64     `json:"to"`
	Who       string    `json:"who"`
	Why       string    `json:"why"`
	Worker    string    `json:"worker,omitempty"`
	Build     string    `json:"build,omitempty"`
	At        time.Time `json:"at"` // by the clock of whoever did it
}

// mostDeeds bounds a report: the newest are kept, and all by which something is in neither sink.
const mostDeeds = 10_000

// forEver says whether the deed stays in every report: an accepted loss, and a reset.
func (d *Deed) forEver() bool { return d.Kind == "accept_loss" || d.Kind == "reset" }

// newest are the deeds that a report keeps.
func newest(ds []Deed) []Deed {
	drop := -mostDeeds
	for i := range ds {
		if !ds[i].forEver() {
			drop++
		}
	}
	return slices.DeleteFunc(ds, func(d Deed) bool {
		if d.forEver() || drop <= 0 {
			return false
		}
		drop--
		return true
	})
}

func (r *run) deed(e *entry) {
	r.deeds++
	r.deedList = append(r.deedList, Deed{e.partition, e.seq, e.kind, e.from, e.to, e.who, e.why, e.worker, e.build, e.at})
	if r.deeds%mostDeeds == 0 {
		r.deedList = newest(r.deedList)
	}
}

// Report is what an audit says.
type Report struct {
	At         time.Time                `json:"at"` // when it was done
	Group      string                   `json:"group"`
	Input      string                   `json:"input"`
	Output     string                   `json:"output"`
	DLQ        string                   `json:"dlq"`
	Since      *time.Time               `json:"since,omitempty"`
	Until      *time.Time               `json:"until,omitempty"`
	Versions   map[string]string        `json:"versions"` // of what audited and of what was audited
	Settled    bool                     `json:"settled"`
	Round      bool                     `json:"round,omitempty"` // only what an earlier round of the same process had not proven was looked at
	Totals     Totals                   `json:"totals"`
	Found      map[Class]int64          `json:"found"`   // every class, zeros too
	BySink     map[Class]map[Sink]int64 `json:"by_sink"` // only what was found
	Partitions []PartitionReport        `json:"partitions"`
	Findings   []Finding                `json:"findings"` // some of each class; Found counts all
	Notes      []string                 `json:"notes"`    // what it can't vouch for, and why
	Deeds      []Deed                   `json:"deeds"`    // what people did, of all time; of very many the newest, and every accepted loss and reset
	DeedsAll   int64                    `json:"deeds_all"`
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

func (r *run) report() *Report {
	rep := &Report{
		At: time.Now().UTC(), Group: r.opts.Group, Input: r.opts.Input, Output: r.opts.Output, DLQ: r.opts.DLQ, Versions: r.versions,
		Settled: r.opts.Settled, Round: r.earlier != nil, Totals: r.totals, Found: map[Class]int64{}, BySink: r.findings.counts,
		Findings: r.findings.some(), Notes: append([]string{}, r.notes...), Partitions: []PartitionReport{},
	}
	if !r.opts.Since.IsZero() {
		rep.Since = &r.opts.Since
	}
	if !r.opts.Until.IsZero() {
		rep.Until = &r.opts.Until
	}
	if rep.Findings == nil {
		rep.Findings = []Finding{}
	}
	rep.Deeds, rep.DeedsAll = newest(append([]Deed{}, r.deedList...)), r.deeds
	for _, c := range Classes {
		rep.Found[c] = r.findings.total(c)
	}
	for _, p := range r.sorted() {
		s := p.stat
		s.Partition, s.VouchedFrom, s.Stored, s.Group, s.StableEnd = p.id, p.from, p.stored, p.group, p.stableEnd
		s.Findings = r.findings.byPart[p.id]
		if a, ok := r.base(p.id); ok {
			s.VouchedFrom = max(s.VouchedFrom, a.to)
		}
		r.reaches(p, &s)
		s.Coverage, s.Verified = r.coverage(p), p.verified(r.findings.lowest(p.id, p.stored))
		s.LedgerSeq, s.LedgerHead = p.seq, hex.EncodeToString(p.head)
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
		if s.Erased > 0 {
			rep.Notes = append(rep.Notes, fmt.Sprintf("%s/%d: %d records were erased, by entries of the ledger; their bytes are not compared", r.opts.Input, p.id, s.Erased))
		}
		rep.Notes = append(rep.Notes, p.excuses(r.opts.Input)...)
		if to := p.pruned.outbox.end(); to > p.begin {
			rep.Notes = append(rep.Notes, fmt.Sprintf("%s/%d: the outbox was pruned below offset %d, by entries of the ledger; there the events are held against the rows alone", r.opts.Input, p.id, to))
		}
		left := fmt.Sprintf("below, what is left is held against each other and the ledger: rows from offset %d on, dead letters from %d, the outbox from %d, events from %d, the DLQ from %d",
			s.RowsFrom, s.DeadLettersFrom, s.OutboxFrom, s.EventsFrom, s.DLQFrom)
		if to := p.prunedRows(); to > 0 && to == p.from {
			rep.Notes = append(rep.Notes, fmt.Sprintf("%s/%d: rows or dead letters were pruned below offset %d, by entries of the ledger; vouched for from there; %s", r.opts.Input, p.id, p.from, left))
		} else if p.from > p.begin && p.stored > p.begin {
			rep.Notes = append(rep.Notes, fmt.Sprintf("%s/%d: retention removed the input below offset %d; vouched for from there; %s", r.opts.Input, p.id, p.from, left))
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
	rep.Took = time.Since(r.begun)
	rep.Verdict = rep.verdict()
	return rep
}

func (r *Report) verdict() string {
	if r.Clean() && r.Round && r.Totals.Input == 0 {
		return "clean: nothing new"
	}
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
