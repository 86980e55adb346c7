package provision

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/migrations"
	"github.com/exactly-pipeline/exactly/txn"
)

const denied = "42501" // insufficient_privilege

// What each role may do and what it may not, a statement a line. Each is run in a transaction that is rolled back.
func TestRights(t *testing.T) {
	b := fresh(t, shared.Stack)
	b.setUp()
	b.exec(`REVOKE CREATE ON SCHEMA public FROM PUBLIC`)                  // as it is since PostgreSQL 15; doctor asks for it
	b.exec(`CREATE TABLE outboxes (id int); CREATE TABLE elses (id int)`) // somebody else's, in the same schema
	b.exec(`INSERT INTO partition_offsets (source_id, source_partition, next_offset) VALUES (1, 0, 0)`)
	b.exec(`INSERT INTO offset_ledger (source_id, source_partition, seq, kind, from_offset, to_offset) VALUES (1, 0, 1, 'start', 0, 0)`)
	b.setUp()
	const ledgerRow = `(source_id, source_partition, seq, kind, from_offset, to_offset) VALUES (1, 0, 2, 'capture', 0, 1)`
	const click = `(source_id, source_partition, source_offset, user_id, session_id, "timestamp", url, ip, country, geo_build)
		VALUES (1, 0, 0, 1, 's', now(), 'u', '::1', 'ZZ', 'g')`
	const dead = `(source_id, source_partition, source_offset, error_class, error_stage, error_message, headers) VALUES (1, 0, 0, 'c', 's', 'm', '')`
	const worker = `(group_id, worker, incarnation) VALUES ('g', 'w', gen_random_uuid())`
	today := "_" + time.Now().UTC().Format("20060102")
	for _, c := range []struct {
		sql                    string
		setup, worker, auditor bool
	}{
		// The ledger: appended to and read.
		{`SELECT count(*) FROM offset_ledger`, true, true, true},
		{`INSERT INTO offset_ledger ` + ledgerRow, true, true, false},
		{`UPDATE offset_ledger SET records = records + 1`, false, false, false}, // the trigger refuses even the owner
		{`UPDATE offset_ledger SET why = 'x' WHERE false`, false, false, false},
		{`DELETE FROM offset_ledger`, false, false, false},
		{`TRUNCATE offset_ledger`, false, false, false},
		{`TRUNCATE offset_ledger, partition_offsets`, false, false, false},
		{`INSERT INTO offset_ledger ` + strings.Replace(ledgerRow, ", 2,", ", 1,", 1) + ` ON CONFLICT (source_id, source_partition, seq) DO UPDATE SET records = 7`, false, false, false},
		{`SELECT * FROM offset_ledger FOR UPDATE`, true, false, false},
		{`ALTER TABLE offset_ledger DISABLE TRIGGER offset_ledger_append_only`, true, false, false},
		{`DROP TRIGGER offset_ledger_append_only ON offset_ledger`, true, false, false},
		{`CREATE TRIGGER t BEFORE INSERT ON offset_ledger EXECUTE FUNCTION exactly_refuse_change()`, true, false, false},
		{`ALTER TABLE offset_ledger ADD COLUMN x int`, true, false, false},
		{`ALTER TABLE offset_ledger OWNER TO CURRENT_USER`, true, false, false},
		{`CREATE RULE r AS ON INSERT TO offset_ledger DO INSTEAD NOTHING`, true, false, false},
		{`CREATE OR REPLACE FUNCTION exactly_refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`, true, false, false},
		{`DROP TABLE offset_ledger CASCADE`, true, false, false},
		{`COMMENT ON TABLE offset_ledger IS 'x'`, true, false, false},
		{`SET session_replication_role = replica`, false, false, false}, // would switch triggers off

		// Stored offsets: moved by workers; held by people.
		{`SELECT * FROM partition_offsets FOR UPDATE`, true, true, false},
		{`UPDATE partition_offsets SET next_offset = 1, leader_epoch = 1, epoch = 1, published_at_least = 1, ledger_seq = 1, ledger_head = '', worker = 'w',
			claimants = '{}', counted_from = 0, counted_to = 1, counted_window_s = 60, updated_at = now()`, true, true, false},
		{`UPDATE partition_offsets SET state = 'open'`, true, false, false},
		{`UPDATE partition_offsets SET state = 'held', held_by = 'p', held_why = 'y', held_since = now(), epoch = epoch + 1`, true, false, false},
		{`UPDATE partition_offsets SET source_partition = 7`, true, false, false},
		{`INSERT INTO partition_offsets (source_id, source_partition, next_offset) VALUES (1, 1, 0) ON CONFLICT DO NOTHING`, true, true, false},
		{`DELETE FROM partition_offsets`, true, false, false},
		{`TRUNCATE partition_offsets`, true, false, false},

		// Rows, outbox, dead letters: appended to.
		{`INSERT INTO enriched_clicks ` + click, true, true, false},
		{`UPDATE enriched_clicks SET url = ''`, true, false, false},
		{`DELETE FROM enriched_clicks`, true, false, false},
		{`TRUNCATE enriched_clicks`, true, false, false},
		{`SELECT count(*) FROM enriched_clicks`, true, false, true},
		{`SELECT count(*) FROM outbox`, true, true, true},
		{`DELETE FROM outbox`, true, false, false},
		{`INSERT INTO dead_letters ` + dead, true, true, false},
		{`SELECT count(*) FROM dead_letters`, true, true, true}, // a replay reads the letter
		{`UPDATE dead_letters SET replayed_at = now()`, true, false, false},

		// Counts: added to by workers; nobody but the owner takes one away.
		{`INSERT INTO click_counts AS t VALUES ('2026-01-31', 'LI', 1, 0, 2) ON CONFLICT (window_start, country, source_id, source_partition) DO UPDATE SET clicks = t.clicks + excluded.clicks`, true, true, false},
		{`UPDATE click_counts SET clicks = 0 WHERE source_id = 1`, true, true, false},
		{`UPDATE click_counts SET country = 'LI'`, true, false, false},
		{`DELETE FROM click_counts`, true, false, false},
		{`SELECT count(*) FROM click_counts, click_counts_total`, true, true, true},

		// Replays: asked for by people, captured by workers.
		{`SELECT count(*) FROM replays, replay_captures, exactly_dead_letters`, true, true, true},
		{`INSERT INTO replays (source_id, source_partition, source_offset, attempt, letter_source_id, letter_partition, letter_offset, replay, who, why)
			VALUES (1, 0, 0, 1, 1, 0, 0, gen_random_uuid(), 'w', 'y')`, true, false, false},
		{`DELETE FROM replays`, true, false, false},
		{`INSERT INTO replay_captures (source_id, source_partition, source_offset, of_source_id, of_partition, of_offset, attempt) VALUES (2, 0, 0, 1, 0, 0, 1)`, true, true, false},
		{`UPDATE replay_captures SET attempt = 2`, true, false, false},
		{`DELETE FROM replay_captures`, true, false, false},

		// Time partitions: by name for the auditor, not for workers, who reach them through the parent.
		{`SELECT count(*) FROM enriched_clicks` + today, true, false, true},
		{`SELECT count(*) FROM enriched_clicks_default`, true, false, true},
		{`INSERT INTO enriched_clicks` + today + ` ` + click, true, false, false},
		{`DROP TABLE enriched_clicks` + today, true, false, false},
		{`SELECT exactly_make_days_ahead(8)`, true, true, false},
		{`SELECT exactly_make_days_ahead(100)`, false, false, false},
		{`SELECT exactly_make_time_partitions('2031-01-01', '2031-01-02')`, true, false, false},
		{`SELECT exactly_make_time_partition('outbox', 'x', 'DEFAULT')`, false, false, false}, // there is one
		{`SELECT exactly_grant()`, true, false, false},
		{`SELECT exactly_make_roles()`, true, false, false},
		{`LOCK TABLE enriched_clicks IN SHARE MODE`, true, false, false},
		{`LOCK TABLE offset_ledger IN ACCESS EXCLUSIVE MODE`, true, false, false},

		// What an audit has proven: written by auditors alone.
		{`INSERT INTO exactly_verified_through (source_id, source_partition, verified_from, verified_through, ledger_seq, ledger_hash) VALUES (1, 0, 0, 1, 1, '')`, true, false, true},
		{`UPDATE exactly_verified_through SET verified_through = 2`, true, false, true},
		{`DELETE FROM exactly_verified_through`, true, false, false},
		{`SELECT count(*) FROM exactly_verified_through`, true, true, true},

		// What was archived: noted by whoever does it, never changed.
		{`SELECT count(*) FROM ledger_archives`, true, true, true},
		{`INSERT INTO ledger_archives (source_id, source_partition, from_seq, to_seq, begun_at, to_offset, last_hash, file, file_hash, ledger_seq, who, why)
			VALUES (1, 0, 1, 1, 0, 1, '', 'f', '', 2, 'w', 'y')`, true, false, false},
		{`UPDATE ledger_archives SET to_seq = 7`, false, false, false},
		{`DELETE FROM ledger_archives`, false, false, false},

		// Sources and workers.
		{`SELECT start_from FROM sources FOR UPDATE`, true, true, false},
		{`UPDATE sources SET start_from = 'earliest', started_at = now()`, true, true, false},
		{`UPDATE sources SET topic_id = gen_random_uuid()`, true, false, false},
		{`UPDATE sources SET retired_at = now()`, true, false, false},
		{`INSERT INTO sources (topic, topic_id, cluster_id, group_id, outputs) VALUES ('t', gen_random_uuid(), 'c', 'g', '{}')`, true, false, false},
		{`INSERT INTO workers ` + worker + ` ON CONFLICT (group_id, worker) DO UPDATE SET incarnation = excluded.incarnation`, true, true, false},
		{`DELETE FROM workers`, true, false, false},
		{`SELECT count(*) FROM workers, sources, partition_offsets`, true, true, true},

		// The database.
		{`SELECT max(version_id) FROM goose_db_version`, true, true, true},
		{`DELETE FROM goose_db_version`, true, false, false},
		{`CREATE TABLE x (id int)`, true, false, false},
		{`CREATE FUNCTION x() RETURNS int LANGUAGE sql AS 'SELECT 1'`, true, false, false},
		{`CREATE ROLE exactly_intruder`, false, false, false},
		{`GRANT exactly_setup TO CURRENT_USER`, false, false, false},
		{`SET ROLE exactly_setup`, true, false, false},
		{`SELECT system_identifier FROM pg_control_system()`, true, true, true},

		// What is somebody else's stays so.
		{`SELECT * FROM elses`, false, false, false},
		{`SELECT * FROM outboxes`, false, false, false},
	} {
		for role, may := range map[string]bool{"setup": c.setup, "worker": c.worker, "auditor": c.auditor} {
			t.Run(role+" "+strings.Join(strings.Fields(c.sql), " "), func(t *testing.T) {
				conn := b.as(t, role)
				tx, err := conn.Begin(b.ctx)
				require.NoError(t, err)
				defer tx.Rollback(b.ctx) //nolint:errcheck // never committed
				_, err = tx.Exec(b.ctx, c.sql, pgx.QueryExecModeSimpleProtocol)
				var pe *pgconn.PgError
				switch {
				case may:
					require.NoError(t, err)
				case !errors.As(err, &pe):
					t.Fatalf("it is not refused: %v", err)
				case role != "setup":
					require.True(t, pe.Code == denied || pe.Code == "22023" && strings.Contains(c.sql, "(100)"), "refused, but for another reason: %v", err)
				}
			})
		}
	}
}

var sessions = map[string]*pgx.Conn{}

// as is a session of a login user that is a member of the role.
func (b *bundle) as(t *testing.T, role string) *pgx.Conn {
	t.Helper()
	c := sessions[b.name+role]
	if c == nil {
		c = b.connect(b.user("is_"+role, "IN ROLE exactly_"+role))
		sessions[b.name+role] = c
	}
	return c
}

// Every table, view and partition that setup makes is known to exactly_grant: the auditor reads it, and somebody's rights on it are exactly_setup's.
func TestEveryTableIsGranted(t *testing.T) {
	b := fresh(t, shared.Stack)
	b.setUp()
	b.exec(`CREATE VIEW outbox_lately AS SELECT 1 AS one`) // as a later migration might
	b.setUp()
	rows, err := b.super.Query(b.ctx, `SELECT relname, has_table_privilege('exactly_auditor', oid, 'SELECT'), has_table_privilege('exactly_auditor', oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'),
		has_table_privilege('exactly_worker', oid, 'DELETE, TRUNCATE, REFERENCES, TRIGGER'), relowner::regrole::text FROM pg_class
		WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')`)
	require.NoError(t, err)
	n := 0
	for ; rows.Next(); n++ {
		var name, owner string
		var reads, writes, deletes bool
		require.NoError(t, rows.Scan(&name, &reads, &writes, &deletes, &owner))
		require.True(t, reads, "the auditor can't read %s", name)
		require.Equal(t, name == "exactly_verified_through", writes, "what the auditor can write: %s", name)
		require.False(t, deletes, "a worker can delete from %s", name)
		require.Equal(t, "exactly_setup", owner, name)
	}
	require.NoError(t, rows.Err())
	require.Greater(t, n, 25)
}

// Rights that somebody gave beyond ours are taken back by the next setup, and repeating it changes nothing.
func TestGrantMends(t *testing.T) {
	b := fresh(t, shared.Stack)
	require.Contains(t, strings.Join(b.setUp(), "\n"), "set the roles' rights on")
	require.Empty(t, b.setUp())
	b.exec(`GRANT UPDATE, DELETE ON offset_ledger TO exactly_worker; GRANT UPDATE (state) ON partition_offsets TO exactly_worker; REVOKE SELECT ON outbox FROM exactly_auditor`)
	require.Contains(t, b.setUp(), "set the roles' rights on 2 tables")
	var update, state, sel bool
	require.NoError(t, b.super.QueryRow(b.ctx, `SELECT has_table_privilege('exactly_worker', 'offset_ledger', 'UPDATE'),
		has_column_privilege('exactly_worker', 'partition_offsets', 'state', 'UPDATE'), has_table_privilege('exactly_auditor', 'outbox', 'SELECT')`).Scan(&update, &state, &sel))
	require.Equal(t, []bool{false, false, true}, []bool{update, state, sel})
}

// The program as its roles: workers work, the auditor audits, whoever sets up mends offsets; and none does another's.
func TestProgramAsRoles(t *testing.T) {
	b := fresh(t, shared.Stack)
	b.setUp()
	worker, auditor, deployer := b.user("w", "IN ROLE exactly_worker"), b.user("a", "IN ROLE exactly_auditor"), b.user("d", "IN ROLE exactly_setup")
	out, code := b.exactly(b.cfg.Postgres.DSN, "generate", "--rate", "0", "--count", "3000", "--bad-share", "0.01")
	require.Zero(t, code, out)

	// Only today's partitions are there: the worker has to make the coming days'.
	b.exec(fmt.Sprintf(`DROP TABLE enriched_clicks_%s`, time.Now().UTC().AddDate(0, 0, 3).Format("20060102")))
	log := &bytes.Buffer{}
	w := exec.Command(shared.Bin, "run")
	w.Env = append(append(os.Environ(), b.env...), "EXACTLY_POSTGRES_DSN="+worker, "EXACTLY_WORKER_ID=w")
	w.Stdout, w.Stderr = log, log
	require.NoError(t, w.Start())
	done := make(chan error, 1)
	go func() { done <- w.Wait() }()
	t.Cleanup(func() { _ = w.Process.Kill() })
	deadline := time.Now().Add(time.Minute)
	for {
		out, code := b.exactly(auditor, "audit", "--settled")
		if code == 0 {
			break
		}
		require.True(t, time.Now().Before(deadline), "audit as the auditor: exit %d\n%s", code, out)
		require.NoError(t, wait.For(b.ctx, 300*time.Millisecond)) // an audit takes the processor from what it waits for
	}
	require.NoError(t, w.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-done)
	require.NotContains(t, log.String(), "permission denied")
	require.NotContains(t, log.String(), "time partitions", "the worker could not make them")
	var there bool
	require.NoError(t, b.super.QueryRow(b.ctx, `SELECT to_regclass('enriched_clicks_' || to_char(now() AT TIME ZONE 'UTC' + interval '3 days', 'YYYYMMDD')) IS NOT NULL`).Scan(&there))
	require.True(t, there, "the worker made no partition for the day that had none")

	for _, c := range []struct {
		dsn  string
		args string
		code int
	}{
		{deployer, "offsets hold --partition 0 --reason r", 0},
		{worker, "offsets release --partition 0", 1},
		{auditor, "offsets release --partition 0", 1},
		{auditor, "offsets show", 0},
		{deployer, "offsets release --partition 0", 0},
		{deployer, "offsets accept-loss --partition 0 --to 100000 --reason r", 1}, // allowed to, but there is none
		{worker, "offsets hold --partition 0 --reason r", 1},
		{deployer, "migrate status", 0},
		{worker, "migrate status", 0},
		{auditor, "migrate status", 0},
		{deployer, "setup", 0},
		{deployer, "migrate", 0},
		{auditor, "run", 1},
		{worker, "dlq replay --all --reason r", 1},
		{auditor, "dlq replay --all --reason r", 1},
		{auditor, "dlq list", 0},
		{deployer, "dlq replay --all --reason r", 0},
	} {
		out, code := b.exactly(c.dsn, strings.Fields(c.args)...)
		require.Equal(t, c.code, code, "exactly %s: %s", c.args, out)
	}
	out, code = b.exactly(auditor, "audit", "--settled")
	require.Zero(t, code, out)
}

// Partitions a worker makes at night belong to the same role as all others, and the auditor reads them.
func TestDaysAhead(t *testing.T) {
	b := fresh(t, shared.Stack)
	b.setUp()
	n, err := migrations.MakeDaysAhead(b.ctx, b.as(t, "worker"), PartitionsAhead+2)
	require.NoError(t, err)
	require.Equal(t, 6, n)
	name := pgx.Identifier{"enriched_clicks_" + time.Now().UTC().AddDate(0, 0, PartitionsAhead+2).Format("20060102")}.Sanitize()
	_, err = b.as(t, "auditor").Exec(b.ctx, `SELECT count(*) FROM `+name)
	require.NoError(t, err)
	_, err = b.as(t, "worker").Exec(b.ctx, `DROP TABLE `+name)
	require.Error(t, err)

	// Names mean what they meant when it was made: a table of the caller's own does not come in between.
	w := b.as(t, "worker")
	_, err = w.Exec(b.ctx, `CREATE TEMP TABLE outbox (created_at timestamptz) PARTITION BY RANGE (created_at)`)
	require.NoError(t, err)
	n, err = migrations.MakeDaysAhead(b.ctx, w, PartitionsAhead+3)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	var mine int
	require.NoError(t, w.QueryRow(b.ctx, `SELECT count(*) FROM pg_inherits WHERE inhparent = 'pg_temp.outbox'::regclass`).Scan(&mine))
	require.Zero(t, mine)
}

// A worker ends a frozen session that holds a row's lock if it is of the same user; of another user only with pg_signal_backend.
func TestEndingFrozenSessions(t *testing.T) {
	b := fresh(t, shared.Stack)
	b.setUp()
	b.exec(`INSERT INTO partition_offsets (source_id, source_partition, next_offset) VALUES (1, 0, 0)`)
	one, two := b.user("one", "IN ROLE exactly_worker"), b.user("two", "IN ROLE exactly_worker")
	claim := func(dsn string) error {
		src, err := txn.FindSource(b.ctx, b.super, b.cfg.Topics.Input, b.cfg.Group)
		require.NoError(t, err)
		s, err := txn.OpenStore(b.ctx, txn.StoreConfig{DSN: dsn, Group: b.cfg.Group, Worker: "x", LockTimeout: 100 * time.Millisecond, IdleTimeout: time.Minute, Log: zap.NewNop()}, src)
		require.NoError(t, err)
		defer s.Close()
		_, err = s.Claim(b.ctx, 0)
		return err
	}
	frozen := func() *pgx.Conn {
		c := b.connect(one)
		_, err := c.Exec(b.ctx, `BEGIN; UPDATE partition_offsets SET updated_at = now()`)
		require.NoError(t, err)
		return c
	}
	first := frozen()
	require.NoError(t, claim(one))
	require.Error(t, first.Ping(b.ctx), "the session lives on")

	second := frozen()
	err := claim(two)
	require.ErrorContains(t, err, "GRANT pg_signal_backend TO exactly_worker")
	require.NoError(t, second.Ping(b.ctx))
	b.exec(`GRANT pg_signal_backend TO exactly_worker`)
	defer b.exec(`REVOKE pg_signal_backend FROM exactly_worker`)
	require.NoError(t, claim(two))
	require.Error(t, second.Ping(b.ctx), "the session lives on")
}
