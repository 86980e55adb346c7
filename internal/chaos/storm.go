package chaos

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/exactly-pipeline/exactly/internal/wait"
)

// stormWorkers come and go.
const stormWorkers = 3

// storm has workers join and leave, one move a second.
func storm(ctx context.Context, c *Chaos, f *Fault) error {
	at := time.Now()
	joined, left, moves := 0, 0, 0
	c.Struck(f, at, "", "membership storm")
	for i := 0; time.Since(at) < f.For; i++ {
		id := fmt.Sprintf("chaos-storm-%d", i%stormWorkers)
		if w := c.worker(id); w != nil && w.Running() {
			if i%2 == 0 {
				w.proc.Crash()
			} else {
				w.stop(20 * time.Second)
			}
			left++
		} else {
			client := f.Client
			if i%2 == 1 {
				client = other(client)
			}
			if _, err := c.Start(id, client); err != nil {
				return err
			}
			joined++
		}
		if moves++; wait.For(ctx, time.Second) != nil {
			return ctx.Err()
		}
	}
	var said int
	for i := range stormWorkers {
		if w := c.worker(fmt.Sprintf("chaos-storm-%d", i)); w != nil {
			said += len(regexp.MustCompile(`rebalance: assigned`).FindAll(w.logFrom(0), -1))
			if w.Running() {
				w.stop(20 * time.Second)
				left++
			}
		}
	}
	if said == 0 {
		return errors.New("none of the workers of the storm was given partitions")
	}
	f.Confirmed = fmt.Sprintf("%d joined, %d left in %.0f s, partitions given to them %d times", joined, left, time.Since(at).Seconds(), said)
	return nil
}

func other(client string) string {
	if client == "franz" {
		return "confluent"
	}
	return "franz"
}

// grow doubles the input's partitions under load. The new ones must be read from their first click.
func grow(ctx context.Context, c *Chaos, f *Fault) error {
	at := time.Now()
	before := len(c.watch.last().Positions)
	err := c.retry(ctx, func(ctx context.Context) error {
		res, err := c.adm.Kadm().UpdatePartitions(ctx, 2*before, c.cfg.Topics.Input)
		if err == nil {
			err = res.Error()
		}
		if errors.Is(err, kerr.InvalidPartitions) { // done by a try whose answer was lost
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("make the input %d partitions: %w", 2*before, err)
	}
	c.Struck(f, at, "", "")
	// A producer that runs learns of new partitions within minutes: one that starts now sends some clicks to each of them at once.
	if err := c.some(ctx, int64(200*before)); err != nil {
		return fmt.Errorf("send clicks to the new partitions: %w", err)
	}
	err = c.Until(ctx, "every new partition is captured and published", func() bool {
		s := c.watch.last()
		for id, p := range s.Positions {
			if int(id) >= before && (p.Stored == 0 || p.Published == 0) {
				return false
			}
		}
		return len(s.Positions) == 2*before
	})
	if err != nil {
		return err
	}
	f.Confirmed = fmt.Sprintf("%d partitions became %d, all of them at work after %.1f s", before, 2*before, time.Since(at).Seconds())
	return nil
}
