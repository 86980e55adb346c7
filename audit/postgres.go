package audit

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	chunkPages = 4096                // heap pages a scan takes at a time: 32 MiB
	epoch2000  = 946_684_800_000_000 // Postgres' epoch in Unix microseconds
)

// snapshot is one state of the database, read by several connections: the first exports it, the others import it.
type snapshot struct {
	dsn    string
	main   *pgx.Conn
	tables map[string][]table // by parent

	mu   sync.Mutex
	id   string
	idle []*pgx.Conn
}

// table is one time partition.
type table struct {
	name  string // quoted, with its schema
	pages int64
}

// timePartitioned are the tables partitioned by capture time.
var timePartitioned = []string{"enriched_clicks", "outbox", "dead_letters"}

func openSnapshot(ctx context.Context, dsn string) (*snapshot, error) {
	s := &snapshot{dsn: dsn, tables: map[string][]table{}}
	var err error
	if s.main, err = s.connect(ctx); err != nil {
		return nil, err
	}
	// The locks come before the snapshot, so that no time partition is dropped between the two. They conflict with nothing but DDL.
	if _, err = s.main.Exec(ctx, `LOCK TABLE `+strings.Join(timePartitioned, ", ")+` IN ACCESS SHARE MODE`); err == nil {
		err = s.main.QueryRow(ctx, `SELECT pg_export_snapshot()`).Scan(&s.id)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("take a snapshot: %w", err)
	}
	for _, parent := range timePartitioned {
		rows, _ := s.main.Query(ctx, `SELECT format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid) / current_setting('block_size')::int
			FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE i.inhparent = $1::text::regclass ORDER BY c.relname`, parent)
		s.tables[parent], err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (t table, err error) {
			return t, row.Scan(&t.name, &t.pages)
		})
		if err != nil {
			s.close()
			return nil, fmt.Errorf("list the time partitions of %s: %w", parent, err)
		}
	}
	return s, nil
}

// connect opens a connection with a transaction begun. Its timeouts are off: it waits while Kafka is read.
func (s *snapshot) connect(ctx context.Context) (*pgx.Conn, error) {
	c, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	_, err = c.Exec(ctx, `SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`)
	if err != nil {
		_ = c.Close(ctx)
		return nil, fmt.Errorf("begin: %w", err)
	}
	return c, nil
}

// borrow is a connection on the snapshot; it goes back to idle.
func (s *snapshot) borrow(ctx context.Context) (*pgx.Conn, error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		c := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return c, nil
	}
	s.mu.Unlock()
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, fmt.Sprintf(`SET TRANSACTION SNAPSHOT '%s'`, s.id)); err != nil {
		_ = c.Close(ctx)
		return nil, fmt.Errorf("take over the snapshot: %w", err)
	}
	return c, nil
}

func (s *snapshot) giveBack(c *pgx.Conn) {
	s.mu.Lock()
	s.idle = append(s.idle, c)
	s.mu.Unlock()
}

func (s *snapshot) close() {
	if s == nil {
		return
	}
	for _, c := range append(s.idle, s.main) {
		_ = c.Close(context.Background())
	}
}

// scan reads every row of a time-partitioned table in pieces, several at once. newFn is called once a piece; what it returns is
// called with each row's columns in binary format, valid during the call only.
func (r *run) scan(ctx context.Context, parent, columns string, parts []part, newFn func() func([][]byte) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opts.Workers)
	for _, t := range r.pg.tables[parent] {
		chunk := int64(chunkPages)
		if parts != nil { // by an index, where there is one
			chunk = t.pages + 1
		}
		for first := int64(0); first == 0 || first < t.pages; first += chunk {
			where := `true`
			if chunk <= t.pages {
				where = fmt.Sprintf(`ctid >= '(%d,0)'::tid`, first)
			}
			if first+chunk < t.pages { // the last piece is open: the table may have grown within the snapshot's rows
				where += fmt.Sprintf(` AND ctid < '(%d,0)'::tid`, first+chunk)
			}
			if r.opts.Partition != nil {
				where += fmt.Sprintf(` AND source_partition = %d`, *r.opts.Partition)
			}
			where += r.where(parts)
			sql := fmt.Sprintf(`SELECT %s FROM ONLY %s WHERE %s`, columns, t.name, where)
			g.Go(func() error {
				conn, err := r.pg.borrow(ctx)
				if err != nil {
					return err
				}
				fn, n := newFn(), 0
				// ExecParams, not Query: no reflection a value, and the bytes as they came
				rr := conn.PgConn().ExecParams(ctx, sql, nil, nil, nil, []int16{1})
				for rr.NextRow() && err == nil {
					err = fn(rr.Values())
					n++
				}
				if _, cerr := rr.Close(); err == nil {
					err = cerr
				}
				r.pg.giveBack(conn)
				r.tell(n)
				if err != nil {
					return fmt.Errorf("table %s: %w", t.name, err)
				}
				return nil
			})
		}
	}
	return g.Wait()
}

func int2(b []byte) int16  { return int16(binary.BigEndian.Uint16(b)) }
func int4(b []byte) int32  { return int32(binary.BigEndian.Uint32(b)) }
func int8b(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

// inetAddr is the address and netmask of a binary inet (family, bits, is_cidr, length, address), in the form of appendAddr.
func inetAddr(dst, b []byte) []byte {
	if len(b) < 4 || len(b) != 4+int(b[3]) {
		return nil
	}
	a, ok := netip.AddrFromSlice(b[4:])
	if !ok {
		return nil
	}
	bits := b[1]
	if a.Is4In6() && bits >= 96 {
		a, bits = a.Unmap(), bits-96
	}
	dst = append(dst, a.AsSlice()...)
	return append(dst, bits)
}
