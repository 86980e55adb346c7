package doctor

import (
	"fmt"
	"strings"
	"time"
)

const (
	oldestPostgres = 14
	perWorker      = 5 // sessions, beside those of captures (postgres.connections): four for claims, drains and the like, one an hour for time partitions
	longKeepalive  = 10 * 60
	skewed         = time.Second
)

var postgresRules = []rule{
	{
		name: "postgres-version", severity: Error, needs: []Part{Postgres},
		why: "The migrations are written for 14.",
		check: func(p *probe) {
			if p.Database.Version/10000 < oldestPostgres {
				p.found("", fmt.Sprintf("upgrade to PostgreSQL %d or newer", oldestPostgres), "it is PostgreSQL %d", p.Database.Version/10000)
			}
		},
	},
	{
		name: "postgres-primary", severity: Error, needs: []Part{Postgres},
		why: "A replica takes no captures.",
		check: func(p *probe) {
			if p.Database.Replica {
				p.found("postgres.dsn", "point it at the primary (several hosts and target_session_attrs=read-write do that by themselves)", "this is a replica")
			} else if p.Database.Settings["default_transaction_read_only"] == "on" {
				p.found("default_transaction_read_only", "ALTER ROLE … RESET default_transaction_read_only; likewise ALTER DATABASE", "sessions of user %s are read-only", p.Database.User)
			}
		},
	},
	{
		name: "postgres-session", severity: Error, needs: []Part{Postgres},
		why: "A worker's session has timeouts of its own, and transactions of several round trips. A pooler in transaction mode drops the first and breaks the second: a frozen worker could hold a row's lock for ever.",
		check: func(p *probe) {
			run := "connect directly, or through a pooler in session mode that passes startup parameters on"
			if p.Database.SessionError != "" {
				p.found("postgres.dsn", run, "a session with a worker's settings is refused: %s", p.Database.SessionError)
			} else if !p.Database.SessionKept {
				p.found("postgres.dsn", run, "the session's settings, or the session itself, did not stay from one transaction to the next")
			}
		},
	},
	{
		name: "transaction-isolation", severity: Error, needs: []Part{Postgres},
		why: "A claim waits for the row's lock and then reads the row as it is now: so does read committed, and nothing else.",
		check: func(p *probe) {
			if v, ok := p.setting("postgres", p.Database.Settings, "default_transaction_isolation"); ok && v != "read committed" {
				p.found("default_transaction_isolation", "ALTER ROLE … RESET default_transaction_isolation; likewise ALTER DATABASE, ALTER SYSTEM", "it is %q in sessions of user %s", v, p.Database.User)
			}
		},
	},
	{
		name: "fsync", severity: Development, needs: []Part{Postgres},
		why:   "A power failure then damages the database beyond repair.",
		check: on("fsync"),
	},
	{
		name: "full-page-writes", severity: Development, needs: []Part{Postgres},
		why:   "A power failure in the middle of a page then leaves it damaged (some file systems prevent that; say so by silencing this).",
		check: on("full_page_writes"),
	},
	{
		name: "synchronous-commit", severity: Error, needs: []Part{Postgres},
		why: "A capture that was acknowledged and is then lost leaves Kafka ahead of Postgres: its partitions stop until a person has decided.",
		check: func(p *probe) {
			v, ok := p.setting("postgres", p.Database.Settings, "synchronous_commit")
			if ok && v == "off" {
				p.found("synchronous_commit", "ALTER ROLE … SET synchronous_commit = on", "it is off in sessions of user %s: a crash loses the last commits", p.Database.User)
			} else if ok && v == "local" && p.Database.Settings["synchronous_standby_names"] != "" {
				p.foundAs(Warning, "synchronous_commit", "ALTER ROLE … SET synchronous_commit = on", "it is local: commits don't wait for the synchronous standbys there are")
			}
		},
	},
	{
		name: "synchronous-standby", severity: Warning, needs: []Part{Postgres},
		why: "A promoted replica may lack captures that Kafka has the events of: the partitions concerned stop until a person has decided.",
		check: func(p *probe) {
			if v, ok := p.setting("postgres", p.Database.Settings, "synchronous_standby_names"); ok && v == "" && p.Database.Standbys > 0 {
				p.found("synchronous_standby_names", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (…)'", "%d standbys follow it, and no commit waits for any", p.Database.Standbys)
			}
		},
	},
	{
		name: "max-connections", severity: Warning, needs: []Part{Postgres},
		why: fmt.Sprintf("A worker needs up to postgres.connections + %d sessions, and one that is refused is a worker that waits.", perWorker),
		check: func(p *probe) {
			c := p.Database.Connections
			free := c.Max - c.Reserved - c.Used
			needed := 2 * (p.Settings.Postgres.Connections + perWorker)
			if free < needed {
				p.found("max_connections", "raise it (restart), or take sessions from others", "of %d sessions %d are reserved and %d in use: %d are left, and two workers need %d", c.Max, c.Reserved, c.Used, max(0, free), needed)
			}
			if c.UserLimit >= 0 && c.UserLimit-c.UserUsed < needed {
				p.found(p.Database.User, "ALTER ROLE … CONNECTION LIMIT -1; likewise ALTER DATABASE", "this user and database have a limit of %d sessions, %d in use", c.UserLimit, c.UserUsed)
			}
		},
	},
	{
		name: "postgres-timeouts", severity: Warning, needs: []Part{Postgres},
		why: "Workers set timeouts of their own. Others end captures that are slow for once, or sessions that have nothing to do for a while; each time everything in memory is dropped and claimed again.",
		check: func(p *probe) {
			for _, name := range []string{"statement_timeout", "idle_session_timeout", "transaction_timeout"} {
				if ms := p.Database.Settings[name]; ms != "" && ms != "0" { // not every version has each
					p.found(name, "ALTER ROLE … SET "+name+" = 0", "it is %s ms in sessions of user %s", ms, p.Database.User)
				}
			}
		},
	},
	{
		name: "tcp-keepalive", severity: Warning, needs: []Part{Postgres},
		why: "Sessions of a host that has vanished stay until keepalive finds out, and count against max_connections. (The locks they hold are ended sooner, by workers' own timeouts.)",
		check: func(p *probe) {
			if n, ok := p.number("postgres", p.Database.Settings, "tcp_keepalives_idle"); p.Database.Remote && ok && n > longKeepalive {
				p.found("tcp_keepalives_idle", "ALTER SYSTEM SET tcp_keepalives_idle = 60; SELECT pg_reload_conf()", "a silent connection is first asked after %v", time.Duration(n)*time.Second)
			}
		},
	},
	{
		name: "autovacuum", severity: Warning, needs: []Part{Postgres},
		why: "The rows of stored offsets are updated with every capture; without vacuum each claim has to read through all their dead versions, and one day the server stops to prevent a wraparound.",
		check: func(p *probe) {
			if v, ok := p.setting("postgres", p.Database.Settings, "autovacuum"); ok && v == "off" {
				p.found("autovacuum", "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()", "it is off")
			}
		},
	},
	{
		name: "server-encoding", severity: Error, needs: []Part{Postgres},
		why: "Urls are Unicode: a database of another encoding refuses what it can't hold, and the capture fails for good.",
		check: func(p *probe) {
			if e := p.Database.Encoding; e != "UTF8" {
				p.found("", "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and set up anew", "the database's encoding is %s", e)
			}
		},
	},
	{
		name: "clock-skew", severity: Warning, needs: []Part{Postgres},
		why: "A click more than a day ahead of the worker's clock is a dead letter; times in ledger and log (the worker's) and in rows and outbox (the server's) contradict each other when somebody has to reconstruct what happened.",
		check: func(p *probe) {
			if d := p.Database.Skew.Abs(); d-p.Database.SkewError > skewed {
				p.found("", "run an NTP client (chrony, systemd-timesyncd) on both", "Postgres' clock is %v %s this host's", d.Round(time.Millisecond), map[bool]string{true: "ahead of", false: "behind"}[p.Database.Skew > 0])
			}
		},
	},
}

// on is a rule's check that a setting is on.
func on(name string) func(*probe) {
	return func(p *probe) {
		if v, ok := p.setting("postgres", p.Database.Settings, name); ok && v != "on" {
			p.found(name, "ALTER SYSTEM SET "+name+" = on; SELECT pg_reload_conf()", "it is %s", v)
		}
	}
}

var tableRules = []rule{
	{
		name: "migrations", severity: Error, needs: []Part{Postgres, Migrations},
		why: "A worker refuses to start on a database of another version.",
		check: func(p *probe) {
			switch d := &p.Database; {
			case d.Have < d.Want:
				p.found("", "exactly migrate", "the database is at migration %d, this program needs %d", d.Have, d.Want)
			case d.Have > d.Want:
				p.found("", "run the program version that migrated it, or a newer one", "the database is at migration %d, newer than this program's %d", d.Have, d.Want)
			}
		},
	},
	{
		name: "source", severity: Error, needs: []Part{Postgres, Tables, SourceRow},
		why: "A worker does not start on a topic and group that setup has not written down.",
		check: func(p *probe) {
			if p.Database.Source == nil {
				p.found("", "exactly setup", "topic %s and group %s are unknown to the database", p.Settings.Topics.Input, p.Settings.Group)
			}
		},
	},
	{
		name: "worker-rights", severity: Error, needs: []Part{Postgres, Tables},
		why: "A worker that lacks a right finds out in the middle of its work. Run doctor as the user that workers log in as.",
		check: func(p *probe) {
			if len(p.Database.Lacks) > 0 {
				p.found(p.Database.User, "GRANT exactly_worker TO …; exactly setup (as a member of exactly_setup) gives the role its rights", "user %s may not: %s", p.Database.User, strings.Join(p.Database.Lacks, ", "))
			}
		},
	},
	{
		name: "ledger-writable", severity: Development, needs: []Part{Postgres, Tables},
		why: "The ledger is proof only as long as nobody who works can change it. A trigger refuses changes in any case, but whoever owns the table can switch it off.",
		check: func(p *probe) {
			if len(p.Database.Ledger) > 0 {
				p.found(p.Database.User, "let workers log in as a user that is a member of exactly_worker and of nothing else", "user %s %s", p.Database.User, strings.Join(p.Database.Ledger, ", "))
			}
		},
	},
	{
		name: "ledger-trigger", severity: Error, needs: []Part{Postgres, Tables},
		why: "It is what keeps even the ledger's owner from changing entries by mistake.",
		check: func(p *probe) {
			if t := p.Database.Trigger; t != "O" && t != "A" {
				p.found("offset_ledger", "ALTER TABLE offset_ledger ENABLE TRIGGER USER; and exactly audit", "of its triggers offset_ledger_append_only and offset_ledger_archived_only one is %s", map[bool]string{true: "gone", false: "switched off"}[t == ""])
			}
		},
	},
	{
		name: "worker-signals", severity: Warning, needs: []Part{Postgres, Tables},
		why: "A claim ends the session of a frozen worker that holds the row's lock. It may if both log in as the same user; otherwise the partition waits until the session's own timeouts strike.",
		check: func(p *probe) {
			if d := &p.Database; len(d.Workers) > 0 && !d.MaySignal {
				p.found(d.User, "let all workers log in as the same user; or GRANT pg_signal_backend TO exactly_worker", "others log in as workers, too (%s), and user %s may not end their sessions", strings.Join(d.Workers, ", "), d.User)
			}
		},
	},
	{
		name: "schema-create", severity: Development, needs: []Part{Postgres, Tables},
		why: "Whoever may create in the schema can put functions and tables in the way of those who trust it (the default of PostgreSQL 14 and older).",
		check: func(p *probe) {
			if p.Database.PublicCreates {
				p.found("", "REVOKE CREATE ON SCHEMA public FROM PUBLIC", "every user may create tables and functions in the schema")
			}
		},
	},
	{
		name: "time-partitions", severity: Warning, needs: []Part{Postgres, Tables},
		why: "What is captured on a day without one lands in the default partition, which can't be dropped by the day.",
		check: func(p *probe) {
			if p.Database.Days < 2 {
				p.found("", "exactly migrate", "there are time partitions for %d days from today on", p.Database.Days)
			}
		},
	},
	{
		name: "default-partition", severity: Warning, needs: []Part{Postgres, Tables},
		why: "While rows of a day are in the default partition, none can be made for that day.",
		check: func(p *probe) {
			for _, name := range p.Database.Default {
				p.found(name, "with the workers stopped, move its rows: into a table of their own, exactly migrate, and back through the parent", "it holds, or has held, rows")
			}
		},
	},
}
