package bench

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// makePeer builds the peer, and makes its topic and tables: the same table of clicks as ours, and one for offsets.
func makePeer(ctx context.Context, tb testing.TB, p *place) {
	out, err := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", "peer/pom.xml", "-Dout="+p.peerDir(), "package").CombinedOutput()
	require.NoError(tb, err, "build the peer: %s", out)
	makeTopics(ctx, tb, p)
	makeTables(ctx, tb, p)
	conn, err := pgx.Connect(ctx, p.dsn)
	require.NoError(tb, err)
	defer conn.Close(ctx) //nolint:errcheck // the stack goes with it
	_, err = conn.Exec(ctx, `CREATE TABLE sink_offsets (topic text, partition int, next_offset bigint, rows bigint, PRIMARY KEY (topic, partition))`)
	require.NoError(tb, err)
}

func (p *place) peerDir() string { return filepath.Join(p.dir, "peer") }

func startPeer(ctx context.Context, tb testing.TB, p *place, _ int) *program {
	geo, err := filepath.Abs("../../clicks/geo/country.mmdb")
	require.NoError(tb, err)
	u, err := url.Parse(p.dsn)
	require.NoError(tb, err)
	password, _ := u.User.Password()
	q := url.Values{"user": {u.User.Username()}, "password": {password}, "reWriteBatchedInserts": {"true"}, "sslmode": {"disable"}}
	cmd := exec.CommandContext(ctx, "java", "-Xmx1g", "-cp", filepath.Join(p.peerDir(), "peer-1.jar")+":"+filepath.Join(p.peerDir(), "lib", "*"),
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "peer.Peer")
	cmd.Env = append(os.Environ(), "BENCH_BROKERS="+p.stack.Brokers(), "BENCH_GROUP="+p.group, "BENCH_OUTPUT="+p.output, "BENCH_GEO="+geo, "BENCH_CONNECTIONS=2",
		"BENCH_STATE="+filepath.Join(p.dir, "streams"), "BENCH_JDBC=jdbc:postgresql://"+u.Host+u.Path+"?"+q.Encode())
	return launch(tb, cmd)
}

func peerRows(*place) string { return `SELECT coalesce(sum(rows), 0)::bigint FROM sink_offsets` }
