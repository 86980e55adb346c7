package audit

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Coverage is what is known of a run of source offsets, as a report shows it.
type Coverage struct {
	From int64  `json:"from"`
	To   int64  `json:"to"`
	Is   string `json:"is"` // one of Coverages
}

// Coverages lists what can be known, the best first.
var Coverages = []string{"proven", "owed", "waiting", "without_input", "out_of_reach", "lost", "no_entry", "doubtful"}

// mostCoverage bounds a partition's runs in a report.
const mostCoverage = 2_000

// coverage is the partition's offsets from its beginning to the input's stable end, in runs.
func (r *run) coverage(p *partition) (out []Coverage) {
	add := func(from, to int64, is string) {
		if to <= from {
			return
		}
		if n := len(out); n > 0 && out[n-1].To == from && out[n-1].Is == is {
			out[n-1].To = to
			return
		}
		out = append(out, Coverage{from, to, is})
	}
	at := p.begin
	for i := range p.stretches {
		s := &p.stretches[i]
		is := "proven"
		switch {
		case s.found:
			is = "doubtful"
		case s.lost:
			is = "lost"
		case s.big >= 0 && p.big[s.big].seq == 0:
			is = "no_entry"
		case s.owed && s.early < s.input:
			is = "owed"
		}
		add(at, min(s.from, p.from), "out_of_reach")
		if at = s.to; is == "proven" || is == "owed" {
			blind := "without_input"
			if s.to <= p.from && s.rows.n+s.dead.n+s.outbox.n+s.held+s.events.n == 0 {
				blind = "out_of_reach"
			}
			add(s.from, min(s.to, p.from), blind)
			add(max(s.from, p.from), s.to, is)
		} else {
			add(s.from, s.to, is)
		}
	}
	add(at, min(p.from, p.stored), "out_of_reach")
	add(max(p.stored, p.begin), p.stableEnd, "waiting")
	for len(out) > mostCoverage { // worst of two neighbours
		half := out[:0]
		for i := 0; i < len(out); i += 2 {
			c := out[i]
			if i+1 < len(out) {
				next := out[i+1]
				if slices.Index(Coverages, next.Is) > slices.Index(Coverages, c.Is) {
					c.Is = next.Is
				}
				c.To = next.To
			}
			half = append(half, c)
		}
		out = half
	}
	return out
}

// verified is up to where everything is proven: below it is nothing owed, doubtful, hidden or not covered by the ledger.
func (p *partition) verified(worst int64) int64 {
	through := p.vouched()
	for i := range p.stretches {
		s := &p.stretches[i]
		if s.to <= p.from && !s.owed {
			continue
		}
		if s.to <= p.from {
			through = max(p.lo, s.from)
		}
		if s.owed || s.found || s.from < p.from || s.big >= 0 && p.big[s.big].seq == 0 {
			break
		}
		through = s.to
	}
	return min(through, max(worst, p.lo))
}

// Progress is how far an audit is.
type Progress struct {
	Stage   string
	Records int64         // of the stage
	Share   float64       // of the whole, 0 to 1; an estimate
	Left    time.Duration // 0: not known yet
}

// watch tells whoever watches, at most twice a second.
func (r *run) watch(stageRecords int64) {
	if r.opts.Watch == nil {
		return
	}
	now := time.Now().UnixNano()
	last := r.watched.Load()
	if now-last < int64(500*time.Millisecond) || !r.watched.CompareAndSwap(last, now) {
		return
	}
	p := Progress{Stage: r.stage, Records: stageRecords}
	if r.work > 0 {
		p.Share = min(float64(r.done.Load())/float64(r.work), 1)
		if p.Share > 0.01 {
			p.Left = time.Duration(float64(now-r.begun.UnixNano()) * (1 - p.Share) / p.Share).Round(time.Second)
		}
	}
	r.opts.Watch(p)
}

// readVersions asks what was audited what it is.
func (r *run) readVersions(ctx context.Context) error {
	var server, migration string
	err := r.pg.main.QueryRow(ctx, `SELECT current_setting('server_version'), (SELECT max(version_id)::text FROM goose_db_version WHERE is_applied)`).Scan(&server, &migration)
	if err != nil {
		return fmt.Errorf("the server's version: %w", err)
	}
	r.versions["Postgres"] = server + ", migration " + migration
	if vs, err := r.kafka.adm.ApiVersions(ctx); err == nil {
		for _, v := range vs.Sorted() {
			r.versions["Kafka"] = v.VersionGuess()
		}
	}
	r.versions["Audit by"] = "exactly " + cmp.Or(r.opts.Program, "of an unknown version")
	if builds := slices.Sorted(maps.Keys(r.builds)); len(builds) > 0 {
		r.versions["Ledger written by"] = "exactly " + strings.Join(builds, ", ")
	}
	return nil
}

// mostBuilds bounds how many builds a report names.
const mostBuilds = 50

func (r *run) build(e *entry) {
	if e.build != "" && len(r.builds) < mostBuilds {
		r.builds[e.build] = true
	}
}
