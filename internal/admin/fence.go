package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/exactly-pipeline/exactly/internal/wait"
)

func (a *Admin) group(ctx context.Context) (kadm.DescribedGroup, error) {
	ds, err := a.adm.DescribeGroups(ctx, a.cfg.Group)
	d := ds[a.cfg.Group]
	if err == nil && !errors.Is(d.Err, kerr.GroupIDNotFound) {
		err = d.Err
	}
	if err != nil {
		return d, fmt.Errorf("ask kafka for the members of group %s: %w", a.cfg.Group, err)
	}
	return d, nil
}

// Unowned implements engine.Group.
func (a *Admin) Unowned(ctx context.Context) ([]int32, bool, error) {
	d, err := a.group(ctx)
	if err != nil || d.State != "Stable" {
		return nil, false, err
	}
	ds, err := a.topics(ctx)
	if err != nil {
		return nil, false, err
	}
	owned := d.AssignedPartitions()
	var out []int32
	for _, p := range slices.Sorted(maps.Keys(ds[a.cfg.Topics.Input].Partitions)) {
		if _, is := owned[a.cfg.Topics.Input][p]; !is {
			out = append(out, p)
		}
	}
	return out, true, nil
}

// Members are the instance ids (worker ids) that are in the group now.
func (a *Admin) Members(ctx context.Context) (map[string]string, error) {
	d, err := a.group(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, m := range d.Members {
		if m.InstanceID != nil {
			out[*m.InstanceID] = m.ClientHost
		}
	}
	return out, nil
}

// FenceAbsent implements engine.Group. Initialising a worker's transactional id aborts what it has open and fences it; our own is
// initialised at every start, so earlier incarnations of ourselves are fenced already. Live members are left alone.
func (a *Admin) FenceAbsent(ctx context.Context, workers []string) ([]string, error) {
	if len(workers) == 0 {
		return nil, nil
	}
	members, err := a.Members(ctx)
	if err != nil {
		return nil, err
	}
	var fenced []string
	for _, w := range workers {
		if _, alive := members[w]; alive || w == a.cfg.Worker.ID {
			continue
		}
		if err := a.Fence(ctx, a.cfg.TransactionalID(w), a.cfg.Kafka.TransactionTimeout); err != nil {
			return fenced, fmt.Errorf("fence worker %s: %w", w, err)
		}
		fenced = append(fenced, w)
	}
	return fenced, nil
}

// Fence is a producer's InitProducerId and nothing else: the broker aborts what is open under the id and raises its epoch. The timeout is
// what the id has from then on, until a producer initialises it again.
func (a *Admin) Fence(ctx context.Context, transactionalID string, timeout time.Duration) error {
	for {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID = &transactionalID
		req.TransactionTimeoutMillis = int32(timeout.Milliseconds())
		req.ProducerID, req.ProducerEpoch = -1, -1
		res, err := req.RequestWith(ctx, a.cl)
		if err == nil {
			err = kerr.ErrorForCode(res.ErrorCode)
		}
		if err == nil {
			return nil
		}
		// The broker answers CONCURRENT_TRANSACTIONS while it still writes the abort's markers.
		if !errors.Is(err, kerr.ConcurrentTransactions) && !kerr.IsRetriable(err) {
			return fmt.Errorf("init producer id of %s: %w", transactionalID, err)
		}
		if wait.For(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("init producer id of %s: %w", transactionalID, errors.Join(err, ctx.Err()))
		}
	}
}
