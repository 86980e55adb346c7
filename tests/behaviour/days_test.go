package behaviour

import (
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// The geo database is replaced between a capture and its publish: both sinks still agree, since what is published is what was captured.
func TestGeoDatabaseReplaced(t *testing.T) {
	b := setup(t)
	b.generate(clicks / 2)
	b.start("a", failpoint(fp.CaptureCommitted+"=kill@4")).killed(fp.CaptureCommitted)
	captured := b.stored()
	require.Greater(t, captured, b.published(), "the kill left no gap")
	b.start("b", "EXACTLY_GEO_DATABASE="+geoDatabase(t))
	b.settle()
	require.EqualValues(t, 2, b.scalar(`SELECT count(DISTINCT geo_build) FROM enriched_clicks`))
}

// geoDatabase makes one that says Liechtenstein of every address.
func geoDatabase(t *testing.T) string {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoLite2-Country", IncludeReservedNetworks: true,
		Description: map[string]string{"en": "test"}})
	require.NoError(t, err)
	for _, cidr := range []string{"0.0.0.0/0", "2000::/3"} {
		_, n, err := net.ParseCIDR(cidr)
		require.NoError(t, err)
		require.NoError(t, w.Insert(n, mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String("LI")}}))
	}
	path := filepath.Join(t.TempDir(), "li.mmdb")
	f, err := os.Create(path)
	require.NoError(t, err)
	_, err = w.WriteTo(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return path
}

// Postgres ends every session of the workers, several times under load: the outcome of a capture may be unknown, the claim finds out.
func TestPostgresSessionsEnded(t *testing.T) {
	b := setup(t)
	b.both(nil, nil)
	for range 5 {
		b.generate(clicks / 10)
		b.scalar(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'exactly/' || $1 || '/%'`, b.cfg.Group)
	}
	b.settle()
}

func TestWrongSettings(t *testing.T) {
	b := setup(t)
	for _, c := range []struct{ env, says string }{
		{"EXACTLY_KAFKA_SESSION_TIMEOUT=1ms", "kafka.session_timeout (EXACTLY_KAFKA_SESSION_TIMEOUT)"},
		{"EXACTLY_START=yesterday", "must be earliest, latest or an RFC 3339 time"},
		{"EXACTLY_KAFKA_BROKERS=nowhere", "must be host:port"},
		{"EXACTLY_POSTGRES_DSN=mysql://x", "must be postgres://"},
	} {
		w := b.start("a", c.env)
		<-w.done
		require.Equal(t, 2, w.cmd.ProcessState.ExitCode(), c.env)
		require.Contains(t, w.log.Tail(), c.says)
	}
}

// A store that is away at start is waited for and said once.
func TestStoresAwayAtStart(t *testing.T) {
	b := setup(t)
	for _, c := range []struct{ env, says string }{
		{"EXACTLY_POSTGRES_DSN=postgres://exactly@127.0.0.1:1/exactly", "postgres is away: waiting for it"},
		{"EXACTLY_KAFKA_BROKERS=127.0.0.1:1", "kafka is away: waiting for it"},
		{"EXACTLY_REGISTRY_URL=http://127.0.0.1:1", "schema registry is away: waiting for it"},
	} {
		w := b.start("a", c.env)
		w.says(c.says)
		w.stop()
	}
}

// run refuses a database that setup has not seen, and one whose migrations are ahead, with the command to run.
func TestDatabaseBehindAndAhead(t *testing.T) {
	b := setup(t)
	dsn, err := shared.Stack.NewDatabase(b.ctx, "behind")
	require.NoError(t, err)
	w := b.start("a", "EXACTLY_POSTGRES_DSN="+dsn)
	<-w.done
	require.Equal(t, 1, w.cmd.ProcessState.ExitCode())
	require.Contains(t, w.log.Tail(), "run `exactly migrate`")
	// A migration that took away what this program uses.
	_, err = b.db.Exec(b.ctx, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true); CREATE OR REPLACE VIEW exactly_oldest_program AS SELECT 99999::bigint AS migration`)
	require.NoError(t, err)
	w = b.start("a")
	<-w.done
	require.Equal(t, 1, w.cmd.ProcessState.ExitCode())
	require.Contains(t, w.log.Tail(), "newer than this program's")
}

// The largest record that the input takes, and a much larger one that came in compressed, are no clicks: as dead letters, with headers and
// plain, they are larger than they were. They must not hold up the rest.
func TestLargeDeadLetters(t *testing.T) {
	b := setup(t)
	b.generate(clicks / 10)
	b.start("a")
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.cfg.Kafka.Brokers, ",")...), kgo.DefaultProduceTopic(b.cfg.Topics.Input), kgo.ProducerBatchMaxBytes(16<<20),
		kgo.ProducerBatchCompression(kgo.GzipCompression()))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	random := make([]byte, 1_048_588-100)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(random)
	for _, value := range [][]byte{random, make([]byte, 8<<20)} {
		require.NoError(t, cl.ProduceSync(b.ctx, &kgo.Record{Value: value}).FirstErr())
		b.sent++
	}
	b.generate(clicks / 10)
	b.settle()
	require.EqualValues(t, 2, b.scalar(`SELECT count(*) FROM dead_letters WHERE length(value) > 1000000`))
}
