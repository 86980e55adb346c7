package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Roles are the database roles of a deployment: who sets it up and mends it, who works, who only reads. Users log in as members of them.
var Roles = []string{"exactly_setup", "exactly_worker", "exactly_auditor"}

// exclusively runs f while no other setup or migration of this database does: both make what is missing, and would both find it missing.
func exclusively(ctx context.Context, dsn string, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // ends the lock, too
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock(hashtext('exactly setup'))`); err != nil {
		return fmt.Errorf("wait for another setup: %w", err)
	}
	return f(conn)
}

// grant makes the roles that are missing, if this user may, and gives them their rights. It returns what it changed, a line each. A user
// that owns nothing here repeats somebody else's setup, and can't.
func grant(ctx context.Context, conn interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}) ([]string, error) {
	var did, made []string
	var owns bool
	err := conn.QueryRow(ctx, `SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'offset_ledger'::regclass`).Scan(&owns)
	if err != nil || !owns {
		return nil, err
	}
	if err := conn.QueryRow(ctx, `SELECT exactly_make_roles()`).Scan(&made); err != nil {
		return nil, fmt.Errorf("make roles: %w", err)
	}
	for _, r := range made {
		did = append(did, "made role "+r)
	}
	var changed int
	if err := conn.QueryRow(ctx, `SELECT exactly_grant()`).Scan(&changed); err != nil {
		return did, fmt.Errorf("grant rights: %w", err)
	}
	if changed > 0 {
		did = append(did, fmt.Sprintf("set the roles' rights on %d tables", changed))
	}
	return did, nil
}

// RolesToDo is the SQL that an administrator of the server still has to run, because the user that sets up may not; setup is then to be run
// again. Nil if nothing is left. It asks a database that was set up.
func RolesToDo(ctx context.Context, dsn string) ([]string, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // read only
	var f standing
	err = conn.QueryRow(ctx, `SELECT ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1)), quote_ident(current_user), quote_ident(n.nspname),
		pg_has_role(c.relowner, 'USAGE'), c.relowner::regrole::text = 'exactly_setup', pg_has_role(n.nspowner, 'USAGE'),
		coalesce((SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = 'exactly_setup'), false),
		coalesce((SELECT has_schema_privilege(oid, n.oid, 'CREATE') FROM pg_roles WHERE rolname = 'exactly_setup'), false)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = 'offset_ledger'::regclass`, Roles).
		Scan(&f.roles, &f.user, &f.schema, &f.owns, &f.given, &f.ownsSchema, &f.member, &f.mayCreate)
	if err != nil {
		return nil, fmt.Errorf("look at the roles: %w", err)
	}
	return f.toDo(), nil
}

// standing is where the user that sets up stands.
type standing struct {
	roles        []string // those there are
	user, schema string   // quoted where they have to be
	owns         bool     // what is there is this user's, or that of a role it is a member of
	given        bool     // it is exactly_setup's
	ownsSchema   bool
	member       bool // of exactly_setup
	mayCreate    bool // exactly_setup may, in the schema
}

func (f *standing) toDo() []string {
	var sql []string
	for _, r := range Roles {
		if !slices.Contains(f.roles, r) {
			sql = append(sql, "CREATE ROLE "+r+" NOLOGIN;")
		}
	}
	if f.given || !f.owns { // done, or somebody else's to repeat
		return sql
	}
	if !f.mayCreate && !f.ownsSchema {
		sql = append(sql, fmt.Sprintf("GRANT USAGE, CREATE ON SCHEMA %s TO exactly_setup;", f.schema))
	}
	if !f.member {
		sql = append(sql, fmt.Sprintf("GRANT exactly_setup TO %s;", f.user))
	}
	return sql
}

// Explain is what is printed above SQL that is left to do.
func Explain(sql []string) string {
	return "left to an administrator of the Postgres server, because this user may not (then run setup again):\n  " + strings.Join(sql, "\n  ")
}
