package engine

import (
	"fmt"
	"time"
)

// DeadShare bounds how much of what a partition brings may become dead letters: a bad deploy, or another topic's records, must not drain a topic into
// them. It is counted over the last minute. Within it the first Least dead letters are free; then a capture that would bring them above Share of the
// records is not made, and the partition stops. It is looked at again like any stopped partition, and then nothing is free until it has been within the share
// for a minute.
type DeadShare struct {
	Share float64 // of the records, 0 to 1; 0: no limit
	Least int64   // dead letters
}

const (
	shareParts = 6                // of the window
	sharePart  = 10 * time.Second // each
)

// window counts a partition's records of the last minute.
type window struct {
	parts   [shareParts]struct{ at, records, dead int64 }
	stopped bool  // it was above the limit, and has not been within it for a whole window since
	within  int64 // since when it has, in ns; 0: it has not
}

// add counts a capture at now, unless that would be too much.
func (d DeadShare) add(w *window, now time.Time, records, dead int64) (ok bool) {
	if d.Share <= 0 {
		return true
	}
	at := now.UnixNano() / int64(sharePart)
	allRecords, allDead := records, dead
	for _, p := range w.parts {
		if p.at > at-shareParts && p.at <= at {
			allRecords += p.records
			allDead += p.dead
		}
	}
	above := float64(allDead) > d.Share*float64(allRecords)
	if above && (allDead > d.Least || w.stopped) {
		w.stopped, w.within = true, 0
		return false
	}
	switch { // one good record in front of a thousand bad ones says nothing
	case above:
		w.within = 0
	case w.within == 0:
		w.within = now.UnixNano()
	}
	if w.within != 0 && now.UnixNano()-w.within >= int64(shareParts*sharePart) {
		w.stopped = false
	}
	p := &w.parts[at%shareParts]
	if p.at != at {
		p.at, p.records, p.dead = at, 0, 0
	}
	p.records += records
	p.dead += dead
	return true
}

func (d DeadShare) why() string {
	return fmt.Sprintf("of the records of the last minute more than %g%% would be dead letters (dead_letters.max_share): a bad deploy, or records that do not belong "+
		"here? Nothing more is captured. Look at them with exactly dlq list; then run a version that reads them, or raise the limit and restart", 100*d.Share)
}

// tooMany stops a partition whose prepared batch would bring it above the limit.
func (w *Worker) tooMany(b *Batch) bool {
	s := w.parts[b.Partition]
	if s == nil || s.m.Life != b.Life || b.classes[ClassQuarantined] > 0 || w.cfg.DeadShare.add(&s.window, time.Now(), b.Records, b.DeadLetters) {
		return false
	}
	w.obs.Failed(b.Partition, ReasonDeadLetters)
	w.step(b.Partition, Event{Kind: EvBroken, Life: b.Life, Why: w.cfg.DeadShare.why()})
	return true
}
