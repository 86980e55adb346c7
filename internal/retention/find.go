package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/schema"
)

// place is a source partition.
type place struct {
	source    int16
	partition int32
}

// weight is what Postgres has of a source record.
type weight struct{ rows, messages, dead int64 }

// finder finds a user's records: those whose row says so, whose key is the user's id in decimal, or whose bytes do, where there is no row.
// It reads one day after the other: nothing is indexed by user.
type finder struct {
	conn   *pgx.Conn
	user   int64
	key    []byte
	clicks *schema.ClickDecoder
	events *schema.EnrichedDecoder
	found  map[place]map[int64]*weight

	undecoded int64 // dead letters and messages that can't be decoded, and whose key does not say whose they are
}

func newFinder(conn *pgx.Conn, reg *schema.Registry, user int64) *finder {
	return &finder{
		conn: conn, user: user, key: strconv.AppendInt(nil, user, 10), clicks: schema.NewClickDecoder(reg), events: schema.NewEnrichedDecoder(reg),
		found: map[place]map[int64]*weight{},
	}
}

func (f *finder) at(source int16, partition int32, offset int64) *weight {
	p := place{source, partition}
	if f.found[p] == nil {
		f.found[p] = map[int64]*weight{}
	}
	w := f.found[p][offset]
	if w == nil {
		w = &weight{}
		f.found[p][offset] = w
	}
	return w
}

func (f *finder) find(ctx context.Context) error {
	rows, err := f.conn.Query(ctx, `SELECT p.relname::text, substr(c.relname::text, length(p.relname::text) + 2) FROM pg_inherits i
		JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
		WHERE i.inhparent = ANY (ARRAY['outbox'::regclass, 'enriched_clicks'::regclass, 'dead_letters'::regclass])`)
	if err != nil {
		return err
	}
	has := map[string]map[string]bool{"enriched_clicks": {}, "dead_letters": {}, "outbox": {}}
	var table, suffix string
	if _, err := pgx.ForEachRow(rows, []any{&table, &suffix}, func() error { has[table][suffix] = true; return nil }); err != nil {
		return err
	}
	var days []string
	for _, of := range has {
		for d := range of {
			if !slices.Contains(days, d) {
				days = append(days, d)
			}
		}
	}
	slices.Sort(days)
	for i, day := range days {
		progress.Of(ctx).At("reading every day", int64(i), int64(len(days)))
		if err := f.day(ctx, day, has["enriched_clicks"][day], has["dead_letters"][day], has["outbox"][day]); err != nil {
			return fmt.Errorf("look for it in the day %s: %w", day, err)
		}
	}
	return nil
}

// day looks into one day: rows and dead letters, then the messages of those coordinates, of that key, and, where nothing else tells of
// them any more, of that user by their bytes.
func (f *finder) day(ctx context.Context, day string, clicks, dead, messages bool) error {
	var of [3][]int64 // coordinates found in this day: source, partition, offset
	note := func(source int16, partition int32, offset int64) *weight {
		of[0], of[1], of[2] = append(of[0], int64(source)), append(of[1], int64(partition)), append(of[2], offset)
		return f.at(source, partition, offset)
	}
	if clicks {
		rows, err := f.conn.Query(ctx, `SELECT source_id, source_partition, source_offset FROM ONLY `+quoted("enriched_clicks", day)+` WHERE user_id = $1`, f.user)
		if err == nil {
			err = f.each(rows, func(s int16, p int32, o int64) { note(s, p, o).rows++ })
		}
		if err != nil {
			return err
		}
	}
	if dead {
		rows, err := f.conn.Query(ctx, `SELECT source_id, source_partition, source_offset, '', key, value FROM ONLY `+quoted("dead_letters", day))
		if err == nil {
			err = f.decoded(ctx, rows, func(s int16, p int32, o int64) { note(s, p, o).dead++ })
		}
		if err != nil {
			return err
		}
	}
	if !messages {
		return nil
	}
	from := ` FROM ONLY ` + quoted("outbox", day) + ` WHERE erased_at IS NULL`
	if clicks && dead {
		rows, err := f.conn.Query(ctx, `SELECT source_id, source_partition, source_offset`+from+` AND (key = $1 OR
			(source_id, source_partition, source_offset) IN (SELECT * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[])))`, f.key, of[0], of[1], of[2])
		if err == nil {
			err = f.each(rows, func(s int16, p int32, o int64) { f.at(s, p, o).messages++ })
		}
		return err
	}
	rows, err := f.conn.Query(ctx, `SELECT source_id, source_partition, source_offset, topic, key, value`+from)
	if err == nil {
		err = f.decoded(ctx, rows, func(s int16, p int32, o int64) { f.at(s, p, o).messages++ })
	}
	return err
}

func (f *finder) each(rows pgx.Rows, fn func(int16, int32, int64)) error {
	var s int16
	var p int32
	var o int64
	_, err := pgx.ForEachRow(rows, []any{&s, &p, &o}, func() error { fn(s, p, o); return nil })
	return err
}

// decoded passes on those that are the user's by key or value.
func (f *finder) decoded(ctx context.Context, rows pgx.Rows, fn func(int16, int32, int64)) error {
	var s int16
	var p int32
	var o int64
	var topic string
	var key, value []byte
	_, err := pgx.ForEachRow(rows, []any{&s, &p, &o, &topic, &key, &value}, func() error {
		theirs := string(key) == string(f.key)
		if !theirs && value != nil {
			var err error
			if theirs, err = f.says(ctx, value); err != nil {
				return err
			}
		}
		if theirs {
			fn(s, p, o)
		}
		return nil
	})
	return err
}

// says is whether the value is a click or an enriched click of the user's.
func (f *finder) says(ctx context.Context, value []byte) (bool, error) {
	var e schema.EnrichedClick
	err := f.events.Decode(ctx, value, &e)
	var bad *schema.InvalidError
	if errors.As(err, &bad) {
		err = f.clicks.Decode(ctx, value, &e.Click)
	}
	if errors.As(err, &bad) {
		f.undecoded++
		return false, nil
	}
	return err == nil && e.UserID == f.user, err
}

func (f *finder) notes() []string {
	out := []string{
		"what Kafka's topics hold of it stays until their retention is over; nothing can be taken out of a topic but by compaction (cleanup.policy=compact and a tombstone: a record of the same key without a value), which these topics must not have",
		"backups and WAL from before hold it until they expire",
	}
	if f.undecoded > 0 {
		out = append(out, fmt.Sprintf("%d dead letters can't be decoded, and their keys are not this user's: whose they are nobody can say", f.undecoded))
	}
	return out
}

func quoted(table, suffix string) string {
	return `"` + strings.ReplaceAll(table+"_"+suffix, `"`, `""`) + `"`
}
