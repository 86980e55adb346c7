package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/exactly-pipeline/exactly/migrations"
	"github.com/exactly-pipeline/exactly/txn"
)

// looked are the settings that rules ask for. What a version does not have is missing from the answer.
var looked = []string{
	"default_transaction_read_only", "default_transaction_isolation", "fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names", "autovacuum",
	"statement_timeout", "idle_session_timeout", "transaction_timeout", "tcp_keepalives_idle",
}

func (g *gatherer) postgres(ctx context.Context) error {
	conn, err := g.session(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // read only
	for _, look := range []func(context.Context, *pgx.Conn) error{g.server, g.clock, g.connections, g.tables} {
		if err := look(ctx, conn); err != nil {
			return err
		}
	}
	return nil
}

// session is one with the settings of a worker's (txn.Store); where that is refused, a plain one.
func (g *gatherer) session(ctx context.Context) (*pgx.Conn, error) {
	pc, err := pgx.ParseConfig(g.c.Postgres.DSN)
	if err != nil {
		return nil, err
	}
	plain := pc.Copy()
	idle := strconv.FormatInt(g.c.Postgres.IdleTimeout.Milliseconds(), 10)
	for k, v := range map[string]string{
		"application_name": "exactly/" + g.c.Group + "/doctor", "idle_in_transaction_session_timeout": idle, "tcp_user_timeout": idle, "timezone": "UTC",
	} {
		pc.RuntimeParams[k] = v
	}
	pc.ConnectTimeout, plain.ConnectTimeout = 5*time.Second, 5*time.Second
	conn, err := pgx.ConnectConfig(ctx, pc)
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		conn2, err2 := pgx.ConnectConfig(ctx, plain)
		if err2 != nil {
			return nil, err
		}
		g.f.Database.SessionError = refused.Error()
		return conn2, nil
	}
	if err != nil {
		return nil, err
	}
	var pids [2]int
	kept := true
	for i := range pids {
		var is string
		if err := conn.QueryRow(ctx, `SELECT pg_backend_pid(), setting FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'`).Scan(&pids[i], &is); err != nil {
			_ = conn.Close(ctx)
			return nil, err
		}
		kept = kept && is == idle && pids[i] == pids[0]
	}
	g.f.Database.SessionKept = kept
	return conn, nil
}

func (g *gatherer) server(ctx context.Context, conn *pgx.Conn) error {
	d := &g.f.Database
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_user, rolsuper, pg_is_in_recovery(), pg_encoding_to_char(encoding),
		coalesce(NOT (inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1' OR inet_server_addr() = inet_client_addr()), false),
		(SELECT count(*) FROM pg_stat_replication),
		rolsuper OR pg_has_role('pg_signal_backend', 'USAGE')
		FROM pg_database, pg_roles WHERE datname = current_database() AND rolname = current_user`).
		Scan(&d.Version, &d.User, &d.Superuser, &d.Replica, &d.Encoding, &d.Remote, &d.Standbys, &d.MaySignal)
	if err != nil {
		return fmt.Errorf("ask for the server: %w", err)
	}
	d.Settings = map[string]string{}
	rows, err := conn.Query(ctx, `SELECT name, setting FROM pg_settings WHERE name = ANY($1)`, looked)
	if err != nil {
		return fmt.Errorf("ask for the settings: %w", err)
	}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error { d.Settings[name] = value; return nil })
	if err != nil {
		return fmt.Errorf("ask for the settings: %w", err)
	}
	return nil
}

// clock compares the clocks by the quickest of some round trips: the server's answer was given somewhere in it.
func (g *gatherer) clock(ctx context.Context, conn *pgx.Conn) error {
	d := &g.f.Database
	for i := range 7 {
		var there time.Time
		before := time.Now()
		if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&there); err != nil {
			return fmt.Errorf("ask for the time: %w", err)
		}
		if half := time.Since(before) / 2; i == 0 || half < d.SkewError {
			d.Skew, d.SkewError = there.Sub(before.Add(half)), half
		}
	}
	return nil
}

func (g *gatherer) connections(ctx context.Context, conn *pgx.Conn) error {
	c := &g.f.Database.Connections
	var role, roleUsed, db, dbUsed int
	err := conn.QueryRow(ctx, `SELECT current_setting('max_connections')::int,
		(SELECT sum(setting::int) FROM pg_settings WHERE name IN ('superuser_reserved_connections', 'reserved_connections')),
		(SELECT sum(numbackends) FROM pg_stat_database),
		rolconnlimit, (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user), datconnlimit, (SELECT numbackends FROM pg_stat_database s WHERE s.datname = current_database())
		FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()`).Scan(&c.Max, &c.Reserved, &c.Used, &role, &roleUsed, &db, &dbUsed)
	if err != nil {
		return fmt.Errorf("ask for the sessions: %w", err)
	}
	c.UserLimit, c.UserUsed = role, roleUsed
	if db >= 0 && (role < 0 || db-dbUsed < role-roleUsed) {
		c.UserLimit, c.UserUsed = db, dbUsed
	}
	return nil
}

// needs are the rights of a worker: what its statements in txn, outbox and migrations ask for.
var needs = []struct{ table, columns, right string }{
	{"goose_db_version", "", "SELECT"}, {"sources", "", "SELECT"}, {"sources", "start_from,started_at", "UPDATE"},
	{"workers", "", "SELECT"}, {"workers", "", "INSERT"}, {"workers", "incarnation,host,pid,build,started_at", "UPDATE"},
	{"partition_offsets", "", "SELECT"}, {"partition_offsets", "source_id,source_partition,next_offset,ledger_seq,ledger_head", "INSERT"},
	{"partition_offsets", "next_offset,counted_from,counted_to,counted_window_s,leader_epoch,epoch,published_at_least,ledger_seq,ledger_head,worker,claimants,updated_at,begun_by," +
		"begun_from,begun_to,careful_to,careful_step,attempts", "UPDATE"},
	{"click_counts", "", "SELECT"}, {"click_counts", "", "INSERT"}, {"click_counts", "clicks", "UPDATE"},
	{"offset_ledger", "", "SELECT"}, {"offset_ledger", "", "INSERT"},
	{"enriched_clicks", "", "INSERT"}, {"dead_letters", "", "INSERT"}, {"outbox", "", "SELECT"}, {"outbox", "", "INSERT"},
}

func (g *gatherer) tables(ctx context.Context, conn *pgx.Conn) (err error) {
	d := &g.f.Database
	d.Have, d.Want, err = migrations.Versions(ctx, g.c.Postgres.DSN)
	if refused(err) {
		g.unknown(Migrations, err)
	} else if err != nil {
		return err
	}
	var there bool
	if err := conn.QueryRow(ctx, `SELECT to_regclass('offset_ledger') IS NOT NULL`).Scan(&there); err != nil {
		return fmt.Errorf("look for the ledger: %w", err)
	}
	if !there {
		g.unknown(Tables, errors.New("there are none yet"))
		return nil
	}
	if err := g.source(ctx, conn); err != nil {
		return err
	}
	return g.privileges(ctx, conn)
}

func (g *gatherer) source(ctx context.Context, conn *pgx.Conn) error {
	s, err := txn.FindSource(ctx, conn, g.c.Topics.Input, g.c.Group)
	switch {
	case errors.Is(err, txn.ErrNoSource):
		return nil
	case refused(err): // worker-rights says so
		g.unknown(SourceRow, err)
		return nil
	case err != nil:
		return err
	}
	g.f.Database.Source = &Source{ClusterID: s.ClusterID, TopicIDs: s.TopicIDs}
	return nil
}

func refused(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "42501" // insufficient_privilege
}

func (g *gatherer) privileges(ctx context.Context, conn *pgx.Conn) error {
	d := &g.f.Database
	lacks := func(what string, may bool) {
		if !may {
			d.Lacks = append(d.Lacks, what)
		}
	}
	for _, n := range needs {
		var may bool
		// What is not there is not lacking a right: migrations says so. A view is not written to.
		err := conn.QueryRow(ctx, `SELECT coalesce((SELECT CASE WHEN relkind = 'v' AND $2 = 'INSERT' THEN true WHEN $3 = '' THEN has_table_privilege(oid, $2)
			ELSE (SELECT bool_and(has_column_privilege(oid, c, $2)) FROM unnest(string_to_array($3, ',')) c) END FROM pg_class WHERE oid = to_regclass($1)), true)`,
			n.table, n.right, n.columns).Scan(&may)
		if err != nil {
			return fmt.Errorf("look at the rights on %s: %w", n.table, err)
		}
		lacks(n.right+" on "+n.table, may)
	}
	var control, days, usage, owns bool
	var role string
	err := conn.QueryRow(ctx, `SELECT coalesce(has_function_privilege(to_regprocedure('pg_control_system()'), 'EXECUTE'), true),
		coalesce(has_function_privilege(to_regprocedure('exactly_make_days_ahead(int)'), 'EXECUTE'), true), has_schema_privilege(n.oid, 'USAGE'),
		pg_has_role(c.relowner, 'USAGE'), c.relowner::regrole::text, (SELECT CASE WHEN count(*) < 2 THEN '' WHEN bool_and(tgenabled IN ('O', 'A')) THEN 'O' ELSE 'D' END
			FROM pg_trigger WHERE tgrelid = c.oid AND tgname IN ('offset_ledger_append_only', 'offset_ledger_archived_only')),
		EXISTS (SELECT FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a WHERE a.grantee = 0 AND a.privilege_type = 'CREATE'),
		ARRAY(SELECT rolname::text FROM pg_roles WHERE rolcanlogin AND NOT rolsuper AND rolname <> current_user AND has_database_privilege(oid, current_database(), 'CONNECT')
			AND EXISTS (SELECT FROM pg_roles w WHERE w.rolname = 'exactly_worker' AND pg_has_role(pg_roles.oid, w.oid, 'MEMBER')) ORDER BY 1),
		ARRAY(SELECT p FROM unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) p WHERE has_table_privilege(c.oid, p)),
		ARRAY(SELECT d.relname::text FROM pg_class d WHERE d.relnamespace = n.oid AND d.relispartition AND d.relname ~ '^(enriched_clicks|outbox|dead_letters)_(.*_)?default$'
			AND pg_relation_size(d.oid) > 0 ORDER BY 1),
		(SELECT coalesce(min(i), 32) FROM generate_series(0, 31) i, pg_class t WHERE t.relnamespace = n.oid AND t.relkind = 'p' AND t.relname ~ '^(enriched_clicks|outbox|dead_letters)'
			AND to_regclass(format('%I.%I', n.nspname, t.relname || to_char((now() AT TIME ZONE 'UTC')::date + i, '_YYYYMMDD'))) IS NULL)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass('offset_ledger')`).
		Scan(&control, &days, &usage, &owns, &role, &d.Trigger, &d.PublicCreates, &d.Workers, &d.Ledger, &d.Default, &d.Days)
	if err != nil {
		return fmt.Errorf("look at the tables: %w", err)
	}
	lacks("EXECUTE on pg_control_system()", control)
	lacks("EXECUTE on exactly_make_days_ahead()", days)
	lacks("USAGE on the schema", usage)
	switch {
	case d.Superuser:
		d.Ledger = []string{"is a superuser"}
	case owns:
		d.Ledger = []string{"owns the ledger, as a member of " + role}
	default:
		for i, right := range d.Ledger {
			d.Ledger[i] = "may " + right + " it"
		}
	}
	return nil
}
