package heal

import (
	"context"
	"errors"
	"strings"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/offsets"
	"github.com/exactly-pipeline/exactly/txn"
)

// Need is which heal would mend something.
type Need struct{ Postgres, Kafka bool }

// Needed looks, without waiting for anything, whether Postgres lacks what the group says was published, or output topics are others than the source
// was set up with, or a heal that was begun has not let go. It costs a few requests.
func Needed(ctx context.Context, c *config.Config, log *zap.Logger) (n Need, err error) {
	d, err := offsets.Open(ctx, c, log)
	if err != nil {
		return n, err
	}
	defer d.Close()
	var changed *txn.ErrSourceChanged
	if err := d.Meet(ctx); errors.As(err, &changed) && changed.Output {
		n.Kafka = true
	} else if err != nil {
		return n, err
	}
	partitions, err := d.Admin().Partitions(ctx)
	if err != nil {
		return n, err
	}
	ids := make([]int32, partitions[c.Topics.Input])
	for i := range ids {
		ids[i] = int32(i)
	}
	// The group before the rows: no honest group offset is above a stored offset that was read later.
	group, err := d.Admin().GroupOffsets(ctx, ids)
	if err != nil {
		return n, err
	}
	rows, err := d.Partitions(ctx)
	if err != nil {
		return n, err
	}
	for id, g := range group {
		r, there := rows[id]
		n.Postgres = n.Postgres || g.Has && g.Ours && (!there || g.Offset > r.Next)
	}
	for _, r := range rows {
		n.Postgres = n.Postgres || r.Held && strings.HasPrefix(r.HeldWhy, offsets.Healing+"postgres")
		n.Kafka = n.Kafka || r.Held && strings.HasPrefix(r.HeldWhy, offsets.Healing+"kafka")
	}
	return n, nil
}
