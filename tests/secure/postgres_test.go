//go:build e2e

package secure

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/testca"
)

// database is the stack's server, as its superuser.
type database struct {
	w    *world
	conn *pgx.Conn
}

func (w *world) database() *database {
	conn, err := pgx.Connect(w.ctx, shared.stack.DSN())
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close(w.t.Context()) })
	return &database{w, conn}
}

func (d *database) exec(sql string) {
	d.w.t.Helper()
	_, err := d.conn.Exec(d.w.ctx, sql)
	require.NoError(d.w.t, err, sql)
}

// file writes into the server's data directory, as the server's own user: a key that others could read would be refused.
func (d *database) file(name string, content []byte) {
	d.w.t.Helper()
	d.exec(fmt.Sprintf(`COPY (SELECT '%s') TO PROGRAM 'base64 -d > %s.new && chmod 600 %s.new && mv %s.new %s'`, base64.StdEncoding.EncodeToString(content), name, name, name, name))
}

// serve has the server show a certificate, and demand TLS, with client certificates or without, of the roles that these tests make.
func (d *database) serve(p testca.Pair, hba string) {
	d.w.t.Helper()
	for name, file := range map[string]string{"test.crt": p.Cert, "test.key": p.Key, "test-ca.crt": shared.ca.File} {
		b, err := os.ReadFile(file)
		require.NoError(d.w.t, err)
		d.file(name, b)
	}
	d.file("pg_hba.conf", []byte(hba+"\nhost all exactly 127.0.0.1/32 scram-sha-256\n"))
	d.exec(`ALTER SYSTEM SET ssl_cert_file = 'test.crt'`)
	d.exec(`ALTER SYSTEM SET ssl_key_file = 'test.key'`)
	d.exec(`ALTER SYSTEM SET ssl_ca_file = 'test-ca.crt'`)
	d.exec(`ALTER SYSTEM SET ssl = on`)
	d.exec(`SELECT pg_reload_conf()`)
}

// role makes one that may do what a worker and setup may.
func (d *database) role(name string) {
	d.exec(fmt.Sprintf(`CREATE ROLE %s LOGIN SUPERUSER PASSWORD '%s'`, name, password(name)))
	d.w.t.Cleanup(func() { _, _ = d.conn.Exec(d.w.ctx, `DROP ROLE `+name) })
}

// postgres is a copy whose DSN is that of role, without a password, and with more parameters.
func (w *world) postgres(role string, parameters ...string) *world {
	u, err := url.Parse(w.env["EXACTLY_POSTGRES_DSN"])
	require.NoError(w.t, err)
	u.User = url.User(role)
	u.RawQuery = strings.Join(parameters, "&")
	return w.with("postgres.dsn", u.String())
}

func (w *world) in(parameter, value string) *world {
	return w.with("postgres.dsn", w.env["EXACTLY_POSTGRES_DSN"]+"&"+parameter+"="+url.QueryEscape(value))
}

// The database's certificate is verified, and its refusals are said with the setting to look at.
func TestPostgresTLS(t *testing.T) {
	w := newWorld(t)
	d := w.database()
	d.role("tls_role")
	const byPassword, byCertificate = "hostssl all tls_role 127.0.0.1/32 scram-sha-256", "hostssl all tls_role 127.0.0.1/32 cert"
	verify := w.postgres("tls_role", "sslmode=verify-full").with("postgres.password_file", w.file("pg", password("tls_role")))
	ca := "sslrootcert"
	good, client, expiredClient := shared.ca.Server(), shared.ca.Client("tls_role"), shared.ca.ExpiredClient("tls_role")
	localhost := func(w *world) *world {
		return w.with("postgres.dsn", strings.Replace(w.env["EXACTLY_POSTGRES_DSN"], "127.0.0.1", "localhost", 1))
	}
	certified := func(p testca.Pair) *world {
		return w.postgres("tls_role", "sslmode=verify-full").in(ca, shared.ca.File).in("sslcert", p.Cert).in("sslkey", p.Key)
	}
	for _, c := range []struct {
		name   string
		server testca.Pair
		hba    string
		w      *world
		says   string // nothing: it works
	}{
		{"good", good, byPassword, verify.in(ca, shared.ca.File), ""},
		{"good, another name of it", good, byPassword, localhost(verify.in(ca, shared.ca.File)), ""},
		{"untrusted", good, byPassword, verify.in(ca, testca.New(t).File), "is signed by nobody trusted here"},
		{"untrusted, system", good, byPassword, verify, "is signed by nobody trusted here"},
		{"expired", shared.ca.Expired(), byPassword, verify.in(ca, shared.ca.File), "has expired"},
		{"wrong host", shared.ca.WrongHost(), byPassword, verify.in(ca, shared.ca.File), "is for another host"},
		{"wrong host", shared.ca.Server("localhost"), byPassword, verify.in(ca, shared.ca.File), "is for another host"},
		{"no TLS", good, byPassword, w.postgres("tls_role", "sslmode=disable").with("postgres.password_file", w.file("pg2", password("tls_role"))), "refuses us"},
		{"wrong password", good, byPassword, verify.in(ca, shared.ca.File).with("postgres.password_file", w.file("pg3", password("nobody"))), "does not accept the user or password"},
		{"certificate", good, byCertificate, certified(client), ""},
		{"certificate of another", good, byCertificate, certified(shared.ca.Client("another")), "refuses us"},
		{"no certificate", good, byCertificate, verify.in(ca, shared.ca.File), "refuses us"},
		{"expired certificate", good, byCertificate, certified(expiredClient), "refuses our side of the TLS handshake"},
	} {
		d.serve(c.server, c.hba)
		t.Run(c.name, func(t *testing.T) {
			c.w.t = t
			for _, args := range [][]string{{"setup"}, {"migrate", "status"}, {"audit"}} {
				if c.says == "" {
					out, code := c.w.try(args...)
					require.Zero(t, code, "exactly %v: %s", args, out)
					continue
				}
				if args[0] == "audit" {
					continue // it asks Kafka first
				}
				out := c.w.refused(c.says, args...)
				require.Contains(t, out, "postgres at ")
				require.Contains(t, out, "postgres.dsn")
			}
		})
	}
	d.exec(`ALTER SYSTEM SET ssl = off`)
	d.exec(`SELECT pg_reload_conf()`)
	verify.in(ca, shared.ca.File).refused("can't be spoken to in the way that is set", "setup")
}

// The whole pipeline over verified TLS, while the password changes: it is read again for each new connection, and so is the DSN's file.
func TestPostgresPasswordChanges(t *testing.T) {
	w := newWorld(t)
	d := w.database()
	d.role("changing_role")
	d.serve(shared.ca.Server(), "hostssl all changing_role 127.0.0.1/32 scram-sha-256")
	app := w.postgres("changing_role", "sslmode=verify-full").in("sslrootcert", shared.ca.File).with("postgres.password_file", w.file("pg", password("nobody")))
	w.exactly("setup")
	w.generate(200)
	p := app.start("run")
	p.says("postgres can't be used: trying on until somebody mends it")
	app.rewrite("postgres.password_file", password("changing_role"))
	w.settled(200)
	require.Equal(t, 1, p.count("can't be used"), "%s", p.out.Tail())

	d.exec(`ALTER ROLE changing_role PASSWORD '` + password("next") + `'`)
	d.exec(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'changing_role'`)
	w.generate(100)
	p.says("password authentication failed")
	app.rewrite("postgres.password_file", password("next"))
	w.settled(300)
	p.stop()
	require.LessOrEqual(t, p.count("password authentication failed"), 8, "not once an attempt:\n%s", p.out.Tail())

	whole := app.with("postgres.dsn", "", "postgres.password_file", "")
	delete(whole.env, "EXACTLY_POSTGRES_DSN")
	file := w.file("dsn", strings.Replace(app.env["EXACTLY_POSTGRES_DSN"], "changing_role@", "changing_role:"+password("nobody")+"@", 1))
	whole = whole.with("postgres.dsn_file", file)
	p = whole.start("run")
	p.says("postgres can't be used")
	require.Contains(t, p.out.String(), "see postgres.dsn_file (EXACTLY_POSTGRES_DSN_FILE)")
	w.file("dsn", strings.Replace(app.env["EXACTLY_POSTGRES_DSN"], "changing_role@", "changing_role:"+password("next")+"@", 1))
	w.generate(100)
	w.settled(400)
	p.stop()
	out, code := whole.with("postgres.dsn", "postgres://x@h/d").try("setup")
	require.Equal(t, 2, code)
	require.Contains(t, out, "give one of them")
}
