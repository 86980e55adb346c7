package now

import (
	"fmt"
	"time"

	"github.com/exactly-pipeline/exactly/internal/offsets"
)

// Event is something that happened to a partition while somebody watched.
type Event struct {
	At        time.Time
	Partition int32
	Kind      string // claimed, assigned, held, released, drained
	Says      string
}

const mostEvents = 40

// takeoverSeen is how long a strip shows that it was taken over.
const takeoverSeen = 6 * time.Second

// compare notes what is different between two looks. mu is held.
func (w *Watcher) compare(before, now *Sample) {
	was := map[int32]*offsets.Position{}
	if before != nil {
		for i := range before.Report.Partitions {
			was[before.Report.Partitions[i].Partition] = &before.Report.Partitions[i]
		}
	}
	for i := range now.Report.Partitions {
		p := &now.Report.Partitions[i]
		b := was[p.Partition]
		if b == nil || behind(p) == 0 || ended(b.Stored) != ended(p.Stored) || published(b) != published(p) {
			w.moved[p.Partition] = now.At
		}
		if b == nil {
			continue
		}
		if ended(b.StableEnd) != ended(p.StableEnd) {
			w.came[p.Partition] = now.At
		}
		say := func(kind, format string, a ...any) {
			w.events = append(w.events, Event{now.At, p.Partition, kind, fmt.Sprintf(format, a...)})
		}
		if p.Assigned != b.Assigned {
			switch {
			case p.Assigned == "":
				say("assigned", "taken from %s: nobody has it for now", b.Assigned)
			case b.Assigned == "":
				say("assigned", "assigned to %s", p.Assigned)
			default:
				say("assigned", "assigned to %s, before to %s", p.Assigned, b.Assigned)
			}
		}
		if p.Epoch != nil && b.Epoch != nil && *p.Epoch > *b.Epoch {
			who := p.Owner
			if n := len(p.Claimants); n > 0 {
				who = p.Claimants[n-1]
			}
			if b.Owner != "" && b.Owner != who {
				say("claimed", "claimed by %s, epoch %d; %s can capture no more", who, *p.Epoch, b.Owner)
			} else {
				say("claimed", "claimed by %s, epoch %d", who, *p.Epoch)
			}
		}
		if len(b.Claimants) > 0 && len(p.Claimants) == 0 && p.Owner != "" {
			say("drained", "%s has closed the gap: everything captured before is in Kafka", p.Owner)
		}
		if p.State != b.State && p.State == "held" {
			say("held", "held by %s: %s", p.HeldBy, p.HeldWhy)
		} else if p.State != b.State && b.State == "held" {
			say("released", "released")
		}
	}
	if n := len(w.events); n > mostEvents {
		w.events = w.events[n-mostEvents:]
	}
}

func ended(p *int64) int64 {
	if p == nil {
		return -1
	}
	return *p
}

// published is the group offset, or the one committed last while a transaction holds it; -1: none.
func published(p *offsets.Position) int64 {
	if p.Group == nil && p.Pending {
		return ended(p.Last)
	}
	return ended(p.Group)
}

// behind is how many offsets lie between Kafka's outputs and the input's end.
func behind(p *offsets.Position) int64 {
	if p.StableEnd == nil || p.Stored == nil {
		return 0
	}
	at := *p.Stored
	if g := published(p); g >= 0 {
		at = min(at, g)
	}
	return max(0, *p.StableEnd-at)
}
