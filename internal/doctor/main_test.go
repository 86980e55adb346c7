package doctor

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// shared is the stack all tests of this package use; each has its own database, topics and group.
var shared *stack.Stack

// embedded says whether its broker is the embedded one.
func embedded() bool { return shared.Kind() == stack.Embedded }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "exactly-doctor-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system's temporary folder
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	shared, err = teststack.Join(ctx, stack.Options{Dir: filepath.Join(dir, "stack")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shared.Stop() //nolint:errcheck // its directory goes as well
	return m.Run()
}

var nth atomic.Int32

// bundle is one test's deployment.
type bundle struct {
	t    *testing.T
	ctx  context.Context
	name string
	cfg  config.Config
	db   *pgx.Conn // as the superuser
	adm  *kadm.Client
}

// fresh is settings that nothing has been set up for.
func fresh(t *testing.T) *bundle {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	b := &bundle{t: t, ctx: ctx}
	b.name = fmt.Sprintf("%s_%d", regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "_"), nth.Add(1))
	b.name = "doctor_" + b.name[max(0, len(b.name)-40):]
	dsn, err := shared.NewDatabase(ctx, b.name)
	require.NoError(t, err)
	b.cfg, err = config.Load("", []string{
		"EXACTLY_KAFKA_BROKERS=" + shared.Brokers(), "EXACTLY_REGISTRY_URL=" + shared.RegistryURL(), "EXACTLY_POSTGRES_DSN=" + dsn, "EXACTLY_WORKER_ID=w",
		"EXACTLY_GROUP=" + b.name, "EXACTLY_TOPICS_INPUT=" + b.name + ".in", "EXACTLY_TOPICS_OUTPUT=" + b.name + ".out", "EXACTLY_TOPICS_DLQ=" + b.name + ".dlq",
		"EXACTLY_TOPICS_PARTITIONS=3",
	}, nil)
	require.NoError(t, err)
	b.db, err = pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.db.Close(context.Background()) })
	a, err := admin.New(&b.cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(a.Close)
	b.adm = a.Kadm()
	return b
}

// setup is a deployment that has been set up, and whose user is a worker's.
func setup(t *testing.T) *bundle {
	t.Helper()
	b := fresh(t)
	b.setUp()
	b.cfg.Postgres.DSN = b.user("w", "exactly_worker")
	return b
}

func (b *bundle) setUp() {
	b.t.Helper()
	_, err := provision.Setup(b.ctx, &b.cfg, provision.Options{Log: zap.NewNop()})
	require.NoError(b.t, err)
}

// user makes a user that may log in as a member of a role, and returns the database's DSN for it. No other test's user may connect to it.
func (b *bundle) user(name, role string) string {
	b.t.Helper()
	name = b.name + "_" + name
	id, db := pgx.Identifier{name}.Sanitize(), pgx.Identifier{b.name}.Sanitize()
	b.exec(fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'secret' IN ROLE %s; REVOKE CONNECT ON DATABASE %s FROM PUBLIC; GRANT CONNECT ON DATABASE %s TO %s`, id, role, db, db, id))
	u, err := url.Parse(b.cfg.Postgres.DSN)
	require.NoError(b.t, err)
	u.User = url.UserPassword(name, "secret")
	return u.String()
}

func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.db.Exec(b.ctx, sql, args...)
	require.NoError(b.t, err)
}

// run runs doctor.
func (b *bundle) run(o Options) *Report {
	b.t.Helper()
	r, err := Run(b.ctx, &b.cfg, o)
	require.NoError(b.t, err)
	return r
}

// configure sets a topic's settings.
func (b *bundle) configure(topic string, settings map[string]string) {
	b.t.Helper()
	var all []kadm.AlterConfig
	for k, v := range settings {
		all = append(all, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: &v})
	}
	res, err := b.adm.AlterTopicConfigs(b.ctx, all, topic)
	require.NoError(b.t, err)
	require.NoError(b.t, res[0].Err)
	require.Eventually(b.t, func() bool { // the controller has it before the broker that is asked
		got, err := b.adm.DescribeTopicConfigs(b.ctx, topic)
		if err != nil || got[0].Err != nil {
			return false
		}
		for _, c := range got[0].Configs {
			if want, set := settings[c.Key]; set && c.MaybeValue() != want {
				return false
			}
		}
		return true
	}, 20*time.Second, 20*time.Millisecond)
}
