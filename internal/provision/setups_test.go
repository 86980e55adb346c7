package provision

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/exactly-pipeline/exactly/internal/stack"
)

// Setups at the same time, of one database and of several on one server that has no roles yet: none fails, nothing is made twice.
func TestSetupsAtOnce(t *testing.T) {
	s := newStack(t)
	var g errgroup.Group
	var worlds []*bundle
	for range 3 {
		worlds = append(worlds, fresh(t, s))
	}
	for _, b := range worlds {
		for range 3 {
			g.Go(func() error {
				_, err := Setup(b.ctx, &b.cfg, Options{Log: zap.NewNop()})
				return err
			})
		}
	}
	require.NoError(t, g.Wait())
	for _, b := range worlds {
		require.Empty(t, b.setUp(), "something was left to do")
		var n int
		require.NoError(t, b.super.QueryRow(b.ctx, `SELECT count(*) FROM sources`).Scan(&n))
		require.Equal(t, 1, n)
	}
}

// Whoever may not make roles is told what to have made; all else is done, and works. Once it is made, the next setup does the rest.
func TestSetupWithoutTheRightToMakeRoles(t *testing.T) {
	b := fresh(t, newStack(t))
	owner := b.user("owner", "")
	b.exec(`ALTER DATABASE ` + b.name + ` OWNER TO ` + b.name + `_owner; ALTER SCHEMA public OWNER TO ` + b.name + `_owner`)
	want := []string{"CREATE ROLE exactly_setup NOLOGIN;", "CREATE ROLE exactly_worker NOLOGIN;", "CREATE ROLE exactly_auditor NOLOGIN;", "GRANT exactly_setup TO " + b.name + "_owner;"}
	out, code := b.exactly(owner, "setup")
	require.Zero(t, code, out)
	require.Contains(t, out, "applied migration 00001_spine.sql")
	require.Contains(t, out, Explain(want))
	out, code = b.exactly(owner, "setup", "--json")
	require.Zero(t, code, out)
	require.Contains(t, out, `"GRANT exactly_setup TO `+b.name+`_owner;"`)
	out, code = b.exactly(owner, "audit")
	require.Zero(t, code, out)

	b.exec(strings.Join(want, "\n"))
	out, code = b.exactly(owner, "setup")
	require.Zero(t, code, out)
	require.NotContains(t, out, "left to an administrator")
	require.Contains(t, out, "set the roles' rights on")
	var given, left int
	require.NoError(t, b.super.QueryRow(b.ctx, `SELECT count(*) FILTER (WHERE relowner::regrole::text = 'exactly_setup'), count(*) FILTER (WHERE relowner::regrole::text <> 'exactly_setup')
		FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')`).Scan(&given, &left))
	require.Positive(t, given)
	require.Zero(t, left)
	out, code = b.exactly(owner, "setup")
	require.Zero(t, code, out)
	require.Contains(t, out, "nothing to change")
	out, code = b.exactly(b.user("w", "IN ROLE exactly_worker"), "setup") // repeated by somebody else, with nothing to do
	require.Zero(t, code, out)
	require.Contains(t, out, "nothing to change")
}

// A user that may make roles but is no superuser, as managed servers give one.
func TestSetupWithCreateRole(t *testing.T) {
	b := fresh(t, newStack(t))
	owner := b.user("owner", "CREATEROLE")
	b.exec(`ALTER DATABASE ` + b.name + ` OWNER TO ` + b.name + `_owner`)
	out, code := b.exactly(owner, "setup")
	require.Zero(t, code, out)
	for _, r := range Roles {
		require.Contains(t, out, "made role "+r)
	}
	require.NotContains(t, out, "left to an administrator")
	out, code = b.exactly(owner, "setup")
	require.Zero(t, code, out)
	require.Contains(t, out, "nothing to change")
	_, err := b.as(t, "worker").Exec(b.ctx, `SELECT exactly_make_days_ahead(9)`)
	require.NoError(t, err)
}

// A schema that another user owns: what to ask of whom is said to the letter.
func TestToDo(t *testing.T) {
	all := Roles
	for _, c := range []struct {
		f    standing
		want []string
	}{
		{standing{roles: all, owns: true, given: true, member: true, mayCreate: true}, nil},
		{standing{roles: all, owns: false}, nil}, // a worker repeats setup
		{standing{roles: all, user: `"a-b"`, schema: "s", owns: true}, []string{"GRANT USAGE, CREATE ON SCHEMA s TO exactly_setup;", `GRANT exactly_setup TO "a-b";`}},
		{standing{roles: all, user: "u", schema: "s", owns: true, ownsSchema: true}, []string{"GRANT exactly_setup TO u;"}},
		{standing{roles: all[:2], user: "u", owns: true, given: true}, []string{"CREATE ROLE exactly_auditor NOLOGIN;"}},
	} {
		require.Equal(t, c.want, c.f.toDo(), "%+v", c.f)
	}
}

// newStack is a server that has no roles yet; Kafka is whichever starts soonest.
func newStack(t *testing.T) *stack.Stack {
	t.Helper()
	s, err := stack.Start(t.Context(), stack.Options{Dir: filepath.Join(t.TempDir(), "stack"), NoSyncKafka: true, NoSyncPostgres: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return s
}
