package start

import (
	"context"
	"fmt"
	"time"

	"github.com/exactly-pipeline/exactly/migrations"
	"github.com/exactly-pipeline/exactly/txn"
)

// Postgres is looked at so often, and has so long to answer.
const (
	probeEvery   = 3 * time.Second
	probeTimeout = 2 * time.Second
)

// ProbePostgres tells, until ctx is done, what is wrong with the database; "": it answers, and has the migrations that this program needs. One that has
// more is right: it was migrated for the next version, and this program goes on until it is replaced.
func ProbePostgres(ctx context.Context, store *txn.Store, tell func(trouble string)) {
	t := time.NewTicker(probeEvery)
	defer t.Stop()
	for {
		c, cancel := context.WithTimeout(ctx, probeTimeout)
		have, err := store.Migration(c)
		cancel()
		switch want := migrations.Latest(); {
		case ctx.Err() != nil:
			return
		case err != nil:
			tell("it does not answer") // the worker's own calls say why
		case have < want:
			tell(fmt.Sprintf("it is at migration %d, this program needs %d: run exactly migrate", have, want))
		default:
			tell("")
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
