package provision

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// shared is what all tests of this package use: the program and a stack. Each test has its own database, topics and group.
var shared teststack.Package

func TestMain(m *testing.M) { os.Exit(shared.Run(m, teststack.Join)) }

// bundle is one test's world.
type bundle struct {
	t     *testing.T
	ctx   context.Context
	name  string
	stack *stack.Stack
	cfg   config.Config
	env   []string
	super *pgx.Conn // as the server's superuser
}

var nth atomic.Int32

// fresh is a world with an empty database.
func fresh(t *testing.T, s *stack.Stack) *bundle {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	b := &bundle{t: t, ctx: ctx, stack: s}
	b.name = fmt.Sprintf("prov_%s_%d", regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "_"), nth.Add(1))
	dsn, err := s.NewDatabase(ctx, b.name)
	require.NoError(t, err)
	b.env = []string{
		"EXACTLY_KAFKA_BROKERS=" + s.Brokers(), "EXACTLY_REGISTRY_URL=" + s.RegistryURL(), "EXACTLY_POSTGRES_DSN=" + dsn,
		"EXACTLY_GROUP=" + b.name, "EXACTLY_TOPICS_INPUT=" + b.name + ".in", "EXACTLY_TOPICS_OUTPUT=" + b.name + ".out", "EXACTLY_TOPICS_DLQ=" + b.name + ".dlq",
		"EXACTLY_TOPICS_PARTITIONS=3", "EXACTLY_HTTP_ADDR=", "EXACTLY_KAFKA_SESSION_TIMEOUT=3s", "EXACTLY_KAFKA_HEARTBEAT_INTERVAL=300ms",
		"EXACTLY_LOG_LEVEL=debug",
	}
	b.cfg, err = config.Load("", b.env, nil)
	require.NoError(t, err)
	b.super = b.connect(dsn)
	return b
}

func (b *bundle) connect(dsn string) *pgx.Conn {
	b.t.Helper()
	c, err := pgx.Connect(b.ctx, dsn)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// setUp runs setup as the user the settings name.
func (b *bundle) setUp() []string {
	b.t.Helper()
	did, err := Setup(b.ctx, &b.cfg, Options{Log: zap.NewNop()})
	require.NoError(b.t, err)
	return did
}

func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.super.Exec(b.ctx, sql, args...)
	require.NoError(b.t, err)
}

// user makes a user that may log in, and returns the database's DSN for it.
func (b *bundle) user(name, attributes string) string {
	b.t.Helper()
	name = b.name + "_" + name
	b.exec(fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'secret' %s`, pgx.Identifier{name}.Sanitize(), attributes))
	u, err := url.Parse(b.cfg.Postgres.DSN)
	require.NoError(b.t, err)
	u.User = url.UserPassword(name, "secret")
	return u.String()
}

// exactly runs the program to its end as a user of the database.
func (b *bundle) exactly(dsn string, args ...string) (string, int) {
	cmd := exec.CommandContext(b.ctx, shared.Bin, args...)
	cmd.Env = append(append(os.Environ(), b.env...), "EXACTLY_POSTGRES_DSN="+dsn)
	out, err := cmd.CombinedOutput()
	require.NotNil(b.t, cmd.ProcessState, err)
	return string(out), cmd.ProcessState.ExitCode()
}
