package retention

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is kept of an address is the same in row and event, and the audit holds it against the input, also what was captured before the setting
// was changed. With another key, or with none, it finds every row.
func TestIPAtCapture(t *testing.T) {
	b := setup(t)
	b.work(100)
	key := b.file("key")
	require.NoError(t, os.WriteFile(key, []byte("0123456789abcdef\n"), 0o600))
	env := b.env
	b.env = append(env[:len(env):len(env)], "EXACTLY_PRIVACY_IP=hash", "EXACTLY_PRIVACY_IP_KEY_FILE="+key)
	b.work(200)
	hashed := b.scalar(`SELECT count(*) FROM enriched_clicks WHERE ip << 'fd65:7861:6374::/48'`)
	require.Greater(t, hashed, int64(150))
	require.Positive(t, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE NOT ip << 'fd65:7861:6374::/48'`))
	require.Positive(t, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE ip << 'fd65:7861:6374::/48' AND country <> 'ZZ'`), "the country is that of the whole address")
	b.must("audit", "--settled")
	require.NoError(t, os.WriteFile(key, []byte("another key, as long"), 0o600))
	out, code := b.exactly("audit", "--settled")
	require.Equal(t, 3, code, out)
	require.NoError(t, os.WriteFile(key, []byte("short"), 0o600))
	out, code = b.exactly("audit")
	require.NotZero(t, code)
	require.Contains(t, out, "must be 16 or more")
}

func TestIPTruncated(t *testing.T) {
	b := setup(t)
	b.work(50)
	b.env = append(b.env, "EXACTLY_PRIVACY_IP=truncate")
	b.work(150)
	require.Greater(t, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE family(ip) = 4 AND ip = host(network(set_masklen(ip, 24)))::inet`), int64(50))
	b.must("audit", "--settled")
	// The damage that would be found unhashed is found here, too.
	b.exec(`UPDATE enriched_clicks SET ip = '192.0.2.0' WHERE ctid = (SELECT min(ctid) FROM enriched_clicks)`)
	out, code := b.exactly("audit", "--settled")
	require.Equal(t, 3, code, out)
}
