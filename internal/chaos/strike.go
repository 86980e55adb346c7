package chaos

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"syscall"
	"time"

	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// workerFaults are how workers are struck. A worker that is killed before it comes to its point, by whatever else is going on, is started again.
var workerFaults map[Kind]Inject

func init() {
	workerFaults = map[Kind]Inject{
		KillAt: killAt, KillAny: killAny, Zombie: zombie, Term: term, Memory: memory, Twin: twin, Storm: storm, Grow: grow,
	}
}

// tries is how often a fault that did not come about is set up again.
const tries = 4

func drains(point string) bool { return len(point) > 6 && point[:6] == "drain/" }

// killAt has a worker die at a failpoint. One of a drain needs a gap: the worker then dies first with one captured, and is started again at
// once, so that it gets its partitions and the gap back.
func killAt(ctx context.Context, c *Chaos, f *Fault) error {
	for range tries {
		spec := "kill@2"
		if drains(f.Point) {
			if err := c.diesAt(ctx, f, failpoint.CaptureCommitted, "kill@2"); err != nil {
				c.note("fault %d: %v; tried again", f.N, err)
				continue
			}
			spec = "kill"
		} else if f.Point == failpoint.ClaimBefore {
			spec = "kill"
		}
		if err := c.diesAt(ctx, f, f.Point, spec); err != nil {
			c.note("fault %d: %v; tried again", f.N, err)
			continue
		}
		return c.back(ctx, f)
	}
	return fmt.Errorf("the worker did not come to %s in %d tries", f.Point, tries)
}

// diesAt starts the worker armed and waits for its end. If it is asked for while a worker runs, that one is ended first.
func (c *Chaos) diesAt(ctx context.Context, f *Fault, point, action string) error {
	w, err := c.Replace(f.Worker, f.Client, arm(point, action))
	if err != nil {
		return err
	}
	reach, cancel := context.WithTimeout(ctx, c.opt.Limit/3)
	defer cancel()
	err = until(reach, "the worker came to "+point, func() bool { return !w.Running() })
	if err != nil {
		w.proc.Kill()
		return err
	}
	at, ok := w.hit(point)
	if killed, code := w.ended(); !ok || !killed {
		return fmt.Errorf("worker %s ended otherwise than at %s: exit code %d", w.ID, point, code)
	}
	f.had, f.TakeoverMs = nil, 0
	f.SIGKILLs++
	if point != failpoint.ClaimBefore { // there it has only just been given what it has, and is in no position's row
		f.had = owned(c.watch.at(at), w.ID)
	}
	c.Struck(f, at, "SIGKILL by the process itself, its mark at "+point, "")
	return nil
}

// back starts the worker again, at once or after the others have taken over.
func (c *Chaos) back(ctx context.Context, f *Fault) error {
	if !f.AtOnce {
		if err := c.taken(ctx, f); err != nil {
			return fmt.Errorf("stuck: %w", err)
		}
	}
	w, err := c.Start(f.Worker, f.Client)
	if err != nil {
		return err
	}
	return c.joins(ctx, w, w.from)
}

// taken waits until the others have claimed all that the worker had.
func (c *Chaos) taken(ctx context.Context, f *Fault) error {
	ctx, cancel := context.WithTimeout(ctx, c.opt.Limit)
	defer cancel()
	s := State{At: f.at}
	for {
		var ok bool
		if s, ok = c.watch.next(ctx, s.At); !ok {
			return errors.New("nobody has taken over what the worker had")
		}
		all := true
		for id, p := range f.had {
			all = all && s.Positions[id].Epoch > p.Epoch
		}
		if all {
			if f.TakeoverMs == 0 && len(f.had) > 0 {
				f.TakeoverMs = s.At.Sub(f.at).Milliseconds()
			}
			return nil
		}
	}
}

var consuming = regexp.MustCompile(`rebalance: assigned|consuming`)

func (c *Chaos) joins(ctx context.Context, w *Worker, from int64) error {
	return c.Until(ctx, "worker "+w.ID+" is given partitions", func() bool { return w.Says(consuming, from) || !w.Running() })
}

// working waits until the worker has partitions, as the rows say; a worker that is struck without any would prove nothing.
func (c *Chaos) working(ctx context.Context, id string) (map[int32]Position, error) {
	err := c.Until(ctx, "worker "+id+" has partitions", func() bool { return len(owned(c.watch.last(), id)) > 0 })
	return owned(c.watch.last(), id), err
}

func killAny(ctx context.Context, c *Chaos, f *Fault) error {
	had, err := c.working(ctx, f.Worker)
	if err != nil {
		return err
	}
	w := c.worker(f.Worker)
	if w == nil || !w.Running() {
		return errors.New("the worker had ended before it could be killed")
	}
	at := time.Now()
	w.proc.Crash()
	killed, code := w.ended()
	if !killed {
		return fmt.Errorf("the worker ended otherwise: exit code %d", code)
	}
	f.had = had
	f.SIGKILLs++
	c.Struck(f, at, fmt.Sprintf("process %d ended by SIGKILL", w.PID()), "")
	return c.back(ctx, f)
}

var fenced = regexp.MustCompile(`rebalance: lost|fenced|producer lost|capture refused`)

// zombie freezes a worker, at a failpoint or at random, until others have claimed all it had and its session and transaction are over; woken
// up it must add no ledger entry under its old claims, say that it was fenced, and be given partitions again.
func zombie(ctx context.Context, c *Chaos, f *Fault) error {
	w, at, err := c.freeze(ctx, f)
	if err != nil {
		return err
	}
	c.Struck(f, at, "", "")
	froze := "SIGSTOP"
	if f.Point != "" {
		froze += " at " + f.Point
	}
	if err := c.taken(ctx, f); err != nil {
		return err
	}
	if wait.For(ctx, time.Until(at.Add(f.For))) != nil {
		return ctx.Err()
	}
	before, err := c.captures(ctx, f)
	if err != nil {
		return err
	}
	from, woken := w.LogSize(), time.Now()
	w.Signal(syscall.SIGCONT)
	if err := c.Until(ctx, "the zombie said that it was fenced", func() bool { return w.Says(fenced, from) || !w.Running() }); err != nil {
		return err
	}
	if err := c.joins(ctx, w, from); err != nil {
		return fmt.Errorf("the zombie did not rejoin: %w", err)
	}
	if !w.Running() {
		return errors.New("the zombie ended instead of rejoining")
	}
	after, err := c.captures(ctx, f)
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("the zombie wrote: %d ledger entries under its old claims, %d after it woke up", before, after)
	}
	f.WroteNobody = true
	f.Confirmed = fmt.Sprintf("%s for %.1f s, %d partitions claimed by others; woken up: said it was fenced, wrote nothing, rejoined", froze, woken.Sub(at).Seconds(), len(f.had))
	return nil
}

// freeze stops a worker that has partitions.
func (c *Chaos) freeze(ctx context.Context, f *Fault) (*Worker, time.Time, error) {
	if f.Point == "" {
		had, err := c.working(ctx, f.Worker)
		if err != nil {
			return nil, time.Time{}, err
		}
		w := c.worker(f.Worker)
		f.had = had
		w.Signal(syscall.SIGSTOP)
		at := time.Now()
		return w, at, c.Until(ctx, "the worker is stopped", func() bool { return stopped(w.PID()) })
	}
	for range tries {
		w, err := c.Replace(f.Worker, f.Client, arm(f.Point, "stop@3"))
		if err != nil {
			return nil, time.Time{}, err
		}
		reach, cancel := context.WithTimeout(ctx, c.opt.Limit/3)
		err = until(reach, "the worker stopped at "+f.Point, func() bool { return w.Hit(f.Point) && stopped(w.PID()) || !w.Running() })
		cancel()
		if at, ok := w.hit(f.Point); err == nil && ok && w.Running() {
			if f.had = owned(c.watch.at(at), w.ID); len(f.had) > 0 {
				return w, at, nil
			}
		}
		c.note("fault %d: worker %s was not frozen at %s with partitions in hand; tried again", f.N, w.ID, f.Point)
		w.proc.Kill()
	}
	return nil, time.Time{}, fmt.Errorf("the worker was not frozen at %s in %d tries", f.Point, tries)
}

// captures counts what the worker has captured under the claims it had.
func (c *Chaos) captures(ctx context.Context, f *Fault) (int64, error) {
	var all int64
	for id, p := range f.had {
		var n int64
		err := c.retry(ctx, func(ctx context.Context) error {
			return c.db.QueryRow(ctx, `SELECT count(*) FROM offset_ledger l JOIN sources s USING (source_id) WHERE s.topic = $1 AND s.group_id = $2
				AND kind = 'capture' AND source_partition = $3 AND worker = $4 AND epoch <= $5`, c.cfg.Topics.Input, c.cfg.Group, id, f.Worker, p.Epoch).Scan(&n)
		})
		if err != nil {
			return 0, fmt.Errorf("count the worker's ledger entries: %w", err)
		}
		all += n
	}
	return all, nil
}

// retry asks a store that may be away until it answers.
func (c *Chaos) retry(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.opt.Limit)
	defer cancel()
	for {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ask(once)
		cancel()
		if err == nil || wait.For(ctx, 100*time.Millisecond) != nil {
			return err
		}
	}
}

// term asks the worker to end: exit 0, and in time.
func term(ctx context.Context, c *Chaos, f *Fault) error {
	had, err := c.working(ctx, f.Worker)
	if err != nil {
		return err
	}
	w := c.worker(f.Worker)
	f.had = had
	at := time.Now()
	orderly := w.stop(20 * time.Second)
	if !orderly {
		_, code := w.ended()
		return fmt.Errorf("the worker did not end in an orderly way: exit code %d after %v", code, time.Since(at))
	}
	c.Struck(f, at, fmt.Sprintf("exit code 0 after %.1f s", time.Since(at).Seconds()), "")
	return c.back(ctx, f)
}

var replaced = regexp.MustCompile(`another process runs with the same worker id`)

// twin starts a second process under a running worker's id: the older one must stop and say so, the younger one goes on.
func twin(ctx context.Context, c *Chaos, f *Fault) error {
	had, err := c.working(ctx, f.Worker)
	if err != nil {
		return err
	}
	old := c.worker(f.Worker)
	f.had = had
	at := time.Now()
	w, err := c.Start(f.Worker, f.Client)
	if err != nil {
		return err
	}
	if err := c.Until(ctx, "the older process has ended", func() bool { return !old.Running() }); err != nil {
		old.proc.Kill()
		return err
	}
	if _, code := old.ended(); code != 1 || !w.Says(replaced, old.from) {
		return fmt.Errorf("the older process ended with exit code %d, and said so: %v", code, w.Says(replaced, old.from))
	}
	c.Struck(f, at, fmt.Sprintf("the older process ended with exit code 1 after %.1f s and said that another one runs", time.Since(at).Seconds()), "")
	return c.joins(ctx, w, w.from)
}
