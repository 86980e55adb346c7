package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/internal/failpoint"
)

// point is the worst moment: Postgres has the clicks, Kafka has the events and the new position, in a transaction that is still open.
const point = failpoint.PublishOffsetsSent

// Without failpoints the worker is killed when a random share of all clicks, between these, is stored: the burst is being worked on.
const randomFrom, randomTo = 0.02, 0.15

// Killed is what happened to the worker, and what it left behind.
type Killed struct {
	Worker string `json:"worker"`
	PID    int    `json:"pid"`
	Point  string `json:"point"` // empty: a random moment
	Gap    []Gap  `json:"gap"`   // its partitions
	Owed   int64  `json:"owed"`  // clicks, over all of them
	// TransactionState of the worker in Kafka after it was dead; Ongoing: open, with nobody to end it.
	TransactionState string    `json:"transaction_state"`
	OffsetsPending   bool      `json:"offsets_pending"` // Kafka says that the group's offsets are held by an open transaction
	At               time.Time `json:"at"`
}

// Gap is one source partition between the stores.
type Gap struct {
	Partition int32 `json:"partition"`
	Stored    int64 `json:"stored"`    // offset in Postgres
	Published int64 `json:"published"` // the group's offset in Kafka
	Epoch     int64 `json:"epoch"`     // of the dead worker's claim
}

// Takeover is how the other worker went on.
type Takeover struct {
	By          []string `json:"by"`
	Fenced      bool     `json:"fenced"`       // the dead worker's transaction was ended by the other worker, not by its timeout
	ClaimedMs   int64    `json:"claimed_ms"`   // from the kill to the first claim
	PublishedMs int64    `json:"published_ms"` // from the kill until the last owed click was in Kafka
}

// Restarted is the killed worker's second life.
type Restarted struct {
	Worker     string  `json:"worker"`
	PID        int     `json:"pid"`
	Partitions []int32 `json:"partitions"`
	TookMs     int64   `json:"took_ms"` // from its start until it works on them
}

// kill is the third act: one worker dies in the middle of a transaction.
func (d *demo) kill(ctx context.Context) error {
	k := &d.res.Killed
	*k = Killed{Worker: d.victim.id, PID: d.victim.pid()}
	random := int64((randomFrom + rand.Float64()*(randomTo-randomFrom)) * float64(d.opt.Clicks))
	err := d.until(ctx, lookEvery/10, "", func(c counts) (bool, error) {
		late := d.source.over() && c.done() // so few clicks, or so slow a machine, that the point was not reached
		if d.victim.ended() {
			return true, nil
		}
		if late || !failpoint.Enabled && c.stored >= random {
			k.At = time.Now()
			_ = d.victim.cmd.Process.Kill()
			<-d.victim.done
			return true, nil
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	if !d.victim.killedBySIGKILL() {
		d.victim.mayDie = false
		return fmt.Errorf("%s ended by itself instead of being killed: %v", d.victim.id, d.victim.cmd.ProcessState)
	}
	if hit, err := os.ReadFile(filepath.Join(d.dir, strings.ReplaceAll(point, "/", "-")+".hit")); err == nil && k.At.IsZero() {
		k.Point = point
		k.At, err = time.Parse(time.RFC3339Nano, string(hit))
		if err != nil {
			return fmt.Errorf("read when the worker was killed: %w", err)
		}
	}
	if k.At.IsZero() {
		return fmt.Errorf("%s was killed by somebody else", d.victim.id)
	}
	d.screen.act(3, fmt.Sprintf("kill -9 %s", d.victim.id))
	if k.Point != "" {
		d.screen.tell("Process %d is gone, killed at the worst moment: %s. Postgres had its clicks. Kafka had the same clicks and the worker's new position, but not yet the commit.", k.PID, k.Point)
	} else {
		d.screen.tell("Process %d is gone, killed at a random moment under load. (This build has no failpoints, so no moment can be chosen. With make demo, or go build -tags failpoints, "+
			"it is the worst one: Postgres has the clicks, and Kafka has them in a transaction that is not committed.)", k.PID)
	}
	return d.between(ctx)
}

// between shows what the dead worker left between the stores.
func (d *demo) between(ctx context.Context) error {
	k := &d.res.Killed
	if err := d.sessionsEnded(ctx); err != nil {
		return err
	}
	ps, err := d.positions(ctx)
	if err != nil {
		return err
	}
	d.screen.say("")
	d.screen.say("Its partitions     in Postgres up to     in Kafka up to     owed to Kafka")
	for _, id := range d.owns[d.victim.id] {
		p := ps[id]
		k.Gap = append(k.Gap, Gap{id, p.stored, p.published, p.epoch})
		k.Owed += p.stored - p.published
		d.screen.say("%14d %21s %18s %17s", id, number(p.stored), number(p.published), number(p.stored-p.published))
	}
	d.screen.say("%14s %21s %18s %17s", "all", "", "", number(k.Owed))
	d.screen.say("")
	id := d.cfg.TransactionalID(d.victim.id)
	txns, err := d.adm.Kadm().DescribeTransactions(ctx, id)
	if err != nil {
		return fmt.Errorf("ask kafka for transaction %s: %w", id, err)
	}
	k.TransactionState = txns[id].State
	offsets, err := d.adm.GroupOffsets(ctx, d.owns[d.victim.id])
	if err != nil {
		return err
	}
	for _, o := range offsets {
		k.OffsetsPending = k.OffsetsPending || o.Pending
	}
	switch {
	case k.Owed == 0:
		d.screen.tell("At that instant both were level: nothing was owed.")
		return nil
	case k.TransactionState == "Ongoing" && k.OffsetsPending:
		d.screen.tell("In Kafka, transaction %s is still open: clicks and position are in it, no reader is shown them, and nobody is left to commit it.", id)
	case k.TransactionState == "Ongoing":
		d.screen.tell("In Kafka, transaction %s is still open: no reader is shown what is in it, and nobody is left to commit it.", id)
	}
	d.screen.tell("The %s clicks owed are not lost: Postgres keeps the very bytes Kafka was to get.", number(k.Owed))
	return nil
}

// sessionsEnded waits until Postgres has noticed too: a COMMIT of the dead worker may still be on its way.
func (d *demo) sessionsEnded(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var n int
		err := d.db.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1`, "exactly/"+d.cfg.Group+"/"+d.victim.id).Scan(&n)
		if err != nil {
			return fmt.Errorf("look for the dead worker's sessions: %w", err)
		}
		if n == 0 || time.Since(d.res.Killed.At) > session/2 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// takeOver goes on with the third act: the other worker finishes what was left.
func (d *demo) takeOver(ctx context.Context) error {
	k, t := &d.res.Killed, &d.res.Takeover
	var claimed, level time.Duration
	err := d.until(ctx, lookEvery/2, "     waiting for "+survivor, func(counts) (bool, error) {
		ps, err := d.positions(ctx)
		if err != nil {
			return false, err
		}
		since := time.Since(k.At)
		published, taken := true, true
		t.By = nil
		for _, g := range k.Gap {
			p := ps[g.Partition]
			if p.epoch > g.Epoch && claimed == 0 {
				claimed = since
			}
			published = published && p.published >= g.Stored
			taken = taken && p.epoch > g.Epoch && p.worker != d.victim.id
			if !slices.Contains(t.By, p.worker) {
				t.By = append(t.By, p.worker)
			}
		}
		if published && level == 0 {
			level = since
		}
		return published && taken, nil
	})
	if err != nil {
		return err
	}
	t.ClaimedMs, t.PublishedMs = claimed.Milliseconds(), level.Milliseconds()
	t.Fenced = d.workers[1].says("took over: fenced the predecessors' transactional ids")
	by := strings.Join(t.By, " and ")
	d.screen.say("")
	d.screen.item("   0.0 s  ", "%s is killed.", d.victim.id)
	d.screen.item(fmt.Sprintf("%8s  ", seconds(claimed)), "Kafka has not heard of it for %g seconds and gives its partitions to %s, which claims them in Postgres: "+
		"from now on %s could not write there, were it only frozen.", session.Seconds(), by, d.victim.id)
	if k.Owed > 0 {
		how := ""
		switch {
		case k.TransactionState != "Ongoing": // nothing was open: there was nothing to abort
		case t.Fenced:
			how = by + " has had Kafka abort the open transaction."
		default:
			how = "Kafka has aborted the open transaction: its time was up."
		}
		d.screen.item(fmt.Sprintf("%8s  ", seconds(level)), "%s The %s clicks owed are in Kafka, byte for byte as Postgres kept them.", how, number(k.Owed))
	}
	return nil
}
