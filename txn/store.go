// Package txn owns the two transactions: capture, in Postgres, and publish, in Kafka; their guards, error classes and unknown outcomes.
//
// It promises all or nothing of each, and says so when it can't tell which. It never decides what to do next: that is the engine's.
package txn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/migrations"
)

// StoreConfig is what a Store needs to know.
type StoreConfig struct {
	DSN         string
	CurrentDSN  func() (string, error) // the DSN as it is now, asked at each new connection: its password may change. nil: DSN
	Group       string
	Worker      string
	Build       string        // of the program, noted with the incarnation
	LockTimeout time.Duration // how long a claim waits for a row before it ends the backend that holds it
	IdleTimeout time.Duration // idle_in_transaction_session_timeout of every session
	Connections int           // sessions that share out a capture; default 1
	Tables      []engine.Table
	Counts      *engine.Counts  // in which the handler's rows are counted; nil: in none
	Tracer      pgx.QueryTracer // told of statements; nil: nobody is
	Log         *zap.Logger
}

// Store is Postgres for one worker: claims, captures, the outbox's gap. It implements engine.Store.
type Store struct {
	cfg         StoreConfig
	source      Source
	incarnation uuid.UUID
	copySQL     []string
	pool        *pgxpool.Pool // everything but captures

	identity Identity

	mu      sync.Mutex
	capture []*pgx.Conn // captures, one transaction at a time on each; nil until dialled
}

// OpenStore registers this process as the worker's incarnation and returns its store. ErrNoSource if setup has not been run.
func OpenStore(ctx context.Context, cfg StoreConfig, source Source) (*Store, error) {
	s := &Store{cfg: cfg, source: source, incarnation: uuid.New(), capture: make([]*pgx.Conn, max(cfg.Connections, 1))}
	for _, t := range cfg.Tables {
		s.copySQL = append(s.copySQL, copySQL(t))
	}
	pc, err := pgxpool.ParseConfig(cfg.DSN)
	if err != nil {
		return nil, fmt.Errorf("read postgres.dsn: %w", err)
	}
	s.shape(pc.ConnConfig)
	pc.MaxConns, pc.MinConns = 4, 0
	pc.MaxConnIdleTime = time.Minute
	pc.BeforeConnect = s.refresh
	pc.AfterConnect = s.meet
	if s.pool, err = pgxpool.NewWithConfig(ctx, pc); err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	host, _ := os.Hostname()
	_, err = s.pool.Exec(ctx, `INSERT INTO workers (group_id, worker, incarnation, host, pid, build, started_at) VALUES ($1, $2, $3, $4, $5, $6, now())
		ON CONFLICT (group_id, worker) DO UPDATE SET incarnation = excluded.incarnation, host = excluded.host, pid = excluded.pid,
		build = excluded.build, started_at = excluded.started_at`, cfg.Group, cfg.Worker, s.incarnation, host, os.Getpid(), cfg.Build)
	if err != nil {
		s.pool.Close()
		return nil, fmt.Errorf("register worker %s: %w", cfg.Worker, err)
	}
	return s, nil
}

// shape gives every session its timeouts: a frozen worker must not hold a row's lock for ever.
func (s *Store) shape(c *pgx.ConnConfig) {
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	c.RuntimeParams["application_name"] = "exactly/" + s.cfg.Group + "/" + s.cfg.Worker
	c.RuntimeParams["idle_in_transaction_session_timeout"] = ms(s.cfg.IdleTimeout)
	c.RuntimeParams["tcp_user_timeout"] = ms(s.cfg.IdleTimeout)
	c.RuntimeParams["timezone"] = "UTC"
	c.ConnectTimeout = 5 * time.Second
	c.Tracer = s.cfg.Tracer
	c.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
}

// current is the connection's settings as they are now: with the files that the DSN names, or is in, read again.
func (s *Store) current() (*pgx.ConnConfig, error) {
	dsn, err := s.cfg.DSN, error(nil)
	if s.cfg.CurrentDSN != nil {
		if dsn, err = s.cfg.CurrentDSN(); err != nil {
			return nil, err
		}
	}
	pc, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("read postgres.dsn: %w", err)
	}
	s.shape(pc)
	return pc, nil
}

// refresh gives a pool's new connection the current address, password and certificates.
func (s *Store) refresh(_ context.Context, c *pgx.ConnConfig) error {
	now, err := s.current()
	if err == nil {
		c.Host, c.Port, c.User, c.Password, c.TLSConfig, c.Fallbacks = now.Host, now.Port, now.User, now.Password, now.TLSConfig, now.Fallbacks
	}
	return err
}

// meet compares a new session's database with that of the sessions before (guard 11).
func (s *Store) meet(ctx context.Context, c *pgx.Conn) error {
	var id string
	err := c.QueryRow(ctx, `SELECT system_identifier::text || '/' || CASE WHEN pg_is_in_recovery() THEN 'replica'
		ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END FROM pg_control_system()`).Scan(&id)
	if err != nil {
		return fmt.Errorf("ask postgres for its identity: %w", err)
	}
	before, err := s.identity.Meet(id)
	if err != nil {
		s.cfg.Log.Warn("postgres changed identity", zap.String("before", before), zap.String("now", id))
		go s.pool.Reset() // sessions to the old one end here
	}
	return err
}

// session is the i-th capture session, dialled if need be.
func (s *Store) session(ctx context.Context, i int) (*pgx.Conn, error) {
	s.mu.Lock()
	c := s.capture[i]
	s.mu.Unlock()
	if c != nil && !c.IsClosed() {
		return c, nil
	}
	pc, err := s.current()
	if err != nil {
		return nil, err
	}
	c, err = pgx.ConnectConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	err = s.meet(ctx, c)
	if err == nil && s.identity.Changed() {
		err = ErrStoreChanged // another session has met it first
	}
	if err != nil {
		_ = c.Close(ctx)
		return nil, err
	}
	s.mu.Lock()
	s.capture[i] = c
	s.mu.Unlock()
	return c, nil
}

// hangUp ends the capture sessions: whatever their transactions were doing, it is over or will be found out by a claim.
func (s *Store) hangUp() {
	s.mu.Lock()
	open := s.capture
	s.capture = make([]*pgx.Conn, len(open))
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, c := range open {
		if c != nil {
			_ = c.Close(ctx)
		}
	}
}

// Close ends all sessions.
func (s *Store) Close() {
	s.hangUp()
	s.pool.Close()
}

// Migration is the version the database is at.
func (s *Store) Migration(ctx context.Context) (int64, error) { return migrations.Applied(ctx, s.pool) }

// Incarnation implements engine.Store.
func (s *Store) Incarnation(ctx context.Context) (bool, error) {
	var id uuid.UUID
	err := s.pool.QueryRow(ctx, `SELECT incarnation::text FROM workers WHERE group_id = $1 AND worker = $2`, s.cfg.Group, s.cfg.Worker).Scan(&id)
	if err != nil {
		return false, fmt.Errorf("read worker %s: %w", s.cfg.Worker, err)
	}
	return id == s.incarnation, nil
}

// TopicIDs implements engine.Store. They are read each time: a heal of the output topics moves them.
func (s *Store) TopicIDs(ctx context.Context) (map[string]string, error) {
	src, err := sourceWhere(ctx, s.pool, "source_id = $1", s.source.ID)
	return src.TopicIDs, err
}

func code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}
