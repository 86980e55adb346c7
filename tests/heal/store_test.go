package heal

import (
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"os"

	"github.com/jackc/pgx/v5"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/stack"
)

// copying: CREATE DATABASE locks what it copies, and so does the stack's for new ones.
var copying sync.Mutex

func server(t *testing.T) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig(shared.Stack.DSN())
	require.NoError(t, err)
	cfg.Database = "postgres"
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	require.NoError(t, err)
	return conn
}

// backup copies the world's database; nobody may be connected to it.
func (b *world) backup() {
	b.t.Helper()
	copying.Lock()
	defer copying.Unlock()
	conn := server(b.t)
	defer conn.Close(b.ctx)
	_, err := conn.Exec(b.ctx, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", pgx.Identifier{b.name + "_backup"}.Sanitize(), pgx.Identifier{b.name}.Sanitize()))
	require.NoError(b.t, err)
}

// restore puts the copy in the database's place: what was written since is gone. Sessions of workers are ended.
func (b *world) restore() {
	b.t.Helper()
	conn := server(b.t)
	defer conn.Close(b.ctx)
	_, err := conn.Exec(b.ctx, fmt.Sprintf("DROP DATABASE %s WITH (FORCE)", pgx.Identifier{b.name}.Sanitize()))
	require.NoError(b.t, err)
	_, err = conn.Exec(b.ctx, fmt.Sprintf("ALTER DATABASE %s RENAME TO %s", pgx.Identifier{b.name + "_backup"}.Sanitize(), pgx.Identifier{b.name}.Sanitize()))
	require.NoError(b.t, err)
}

// ownPostgres is a server that a test may break, as a setting of its world.
func ownPostgres(t *testing.T) (*stack.Stack, string) {
	t.Helper()
	s, err := stack.Start(t.Context(), stack.Options{Dir: filepath.Join(shared.Dir, filepath.Base(t.Name())), Only: stack.Postgres, NoSyncPostgres: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return s, "EXACTLY_POSTGRES_DSN=" + s.DSN()
}

// What both stores must have again, but for when it was written, and the salts.
var contents = map[string]string{
	"enriched_clicks": `source_partition, source_offset, user_id, session_id, "timestamp", url, ip, country, geo_build`,
	"dead_letters":    `source_partition, source_offset, error_class, error_stage, error_message, key, value, headers`,
	"outbox":          `source_partition, source_offset, seq, topic, partition, "timestamp", key, value, headers`,
}

// snapshot is what the tables hold, a line a row.
func (b *world) snapshot() map[string][]string {
	b.t.Helper()
	out := map[string][]string{}
	b.sql(func(c *pgx.Conn) {
		for table, columns := range contents {
			rows, err := c.Query(b.ctx, fmt.Sprintf(`SELECT ROW(%s)::text FROM %s ORDER BY source_partition, source_offset`, columns, table))
			require.NoError(b.t, err)
			out[table], err = pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(b.t, err)
			require.NotEmpty(b.t, out[table], table)
		}
	})
	return out
}

// same compares two snapshots and names the first difference.
func same(t *testing.T, want, got map[string][]string, tables ...string) {
	t.Helper()
	for _, table := range tables {
		require.Equal(t, len(want[table]), len(got[table]), table)
		for i := range want[table] {
			require.Equal(t, want[table][i], got[table][i], "%s, row %d", table, i)
		}
	}
}

// geoDatabase makes one that says Liechtenstein of every address, and is a setting.
func geoDatabase(t *testing.T) string {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoLite2-Country", IncludeReservedNetworks: true, BuildEpoch: 1_700_000_000,
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
	return "EXACTLY_GEO_DATABASE=" + path
}
