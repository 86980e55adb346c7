package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// await waits until the pointers are captured and what they made is published.
func await(ctx context.Context, db *pgxpool.Pool, adm *admin.Admin, pointers []Pointer, ends map[int32]int64, atMost time.Duration, rep *Report) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	var ids []int32
	for p := range ends {
		ids = append(ids, p)
	}
	for {
		owed, waiting := 0, int64(0)
		offsets, err := adm.GroupOffsets(ctx, ids)
		if err == nil {
			for p, end := range ends {
				if g := offsets[p]; !g.Has || g.Pending || g.Offset < end {
					owed, waiting = owed+1, waiting+end-max(g.Offset, 0)
				}
			}
		}
		if err == nil && owed == 0 {
			return tally(ctx, db, pointers, rep)
		}
		progress.Of(ctx).At("waiting until all of it is in both sinks", max(int64(len(pointers))-waiting, 0), int64(len(pointers)))
		if wait.For(ctx, 200*time.Millisecond) != nil {
			return errors.Join(fmt.Errorf("not all of it is in both sinks after %v: workers go on with it; is one running? exactly dlq list --state requested", atMost),
				tally(context.WithoutCancel(ctx), db, pointers, rep))
		}
	}
}

func tally(ctx context.Context, db *pgxpool.Pool, pointers []Pointer, rep *Report) error {
	partitions, offsets, attempts := make([]int32, len(pointers)), make([]int64, len(pointers)), make([]int32, len(pointers))
	for i, p := range pointers {
		partitions[i], offsets[i], attempts[i] = p.Partition, p.Offset, int32(p.Attempt)
	}
	err := db.QueryRow(ctx, `SELECT count(*), count(d.source_id) FROM unnest($2::int[], $3::bigint[], $4::int[]) AS p (partition, "offset", attempt)
		JOIN replay_captures c ON (c.of_source_id, c.of_partition, c.of_offset, c.attempt) = ($1::smallint, p.partition, p."offset", p.attempt)
		LEFT JOIN dead_letters d ON (d.source_id, d.source_partition, d.source_offset) = (c.source_id, c.source_partition, c.source_offset)`,
		pointers[0].SourceID, partitions, offsets, attempts).Scan(&rep.Captured, &rep.Again)
	if err != nil {
		return fmt.Errorf("count what was replayed: %w", err)
	}
	return nil
}
