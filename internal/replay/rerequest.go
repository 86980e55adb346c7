package replay

import (
	"cmp"
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// rerequestSQL notes a request again. Its letter is the first record's dead letter, or what the attempt before it captured; where that is not there (yet),
// nothing is noted.
const rerequestSQL = `INSERT INTO replays (source_id, source_partition, source_offset, attempt, letter_source_id, letter_partition, letter_offset, replay, who, why)
	SELECT $1, $2, $3, $4, d.source_id, d.source_partition, d.source_offset, $5::text::uuid, $6, $7 FROM dead_letters d
	WHERE (d.source_id, d.source_partition, d.source_offset) IN (SELECT $1::smallint, $2::int, $3::bigint WHERE $4::int = 1
		UNION ALL SELECT c.source_id, c.source_partition, c.source_offset FROM replay_captures c
			WHERE (c.of_source_id, c.of_partition, c.of_offset, c.attempt) = ($1::smallint, $2::int, $3::bigint, $4::int - 1))
	ON CONFLICT DO NOTHING`

// Rerequest notes the requests behind pointers that Postgres knows nothing of any more, and says how many these were. Who asked, and why, is lost: it
// is o's, and in the ledger.
func Rerequest(ctx context.Context, db *pgxpool.Pool, c *config.Config, src *txn.Source, pointers []Pointer, o Options) (n int, err error) {
	o.By = cmp.Or(o.By, ledger.Whoami())
	id := uuid.New()
	var touched []int32
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('exactly replay'))`); err != nil {
			return err
		}
		asked := map[int32][]Pointer{}
		for _, p := range pointers {
			tag, err := tx.Exec(ctx, rerequestSQL, p.SourceID, p.Partition, p.Offset, p.Attempt, id.String(), o.By, o.Reason)
			if err != nil {
				return err
			}
			if tag.RowsAffected() > 0 {
				asked[p.Partition] = append(asked[p.Partition], p)
				n++
			}
		}
		touched, err = enter(ctx, tx, src, asked, o, o.Reason+" (replay "+id.String()+")")
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("note the requests of replays again: %w", err)
	}
	vouch(ctx, db, c, src, touched, o.Log)
	return n, nil
}
