package retention

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Closed months go to files: the chain goes on, verify and the audit hold with the files and without, the pipeline works, and what is not in a file can't go.
func TestArchive(t *testing.T) {
	b := setup(t)
	b.daysAgo(70, true)
	b.work(400)
	b.daysAgo(0, false)
	b.work(400)
	all := b.scalar(`SELECT count(*) FROM offset_ledger`)
	_, err := b.db.Exec(b.ctx, `DELETE FROM offset_ledger`)
	require.ErrorContains(t, err, "append-only")
	dir := t.TempDir()
	require.Contains(t, b.must("ledger", "archive", "--out", dir, "--reason", "month"), "nothing to archive", "the outbox still has what a heal would need")
	b.must("prune")

	old := b.scalar(`SELECT count(*) FROM offset_ledger WHERE captured_at < now() - interval '60 days'`)
	require.Positive(t, old)
	require.Contains(t, b.must("ledger", "archive", "--out", dir, "--dry-run"), "would be moved to")
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files)
	require.Contains(t, b.must("ledger", "archive", "--out", dir, "--reason", "month"), "moved to")
	require.Zero(t, b.scalar(`SELECT count(*) FROM offset_ledger WHERE captured_at < now() - interval '60 days'`))
	require.Contains(t, b.must("ledger", "archive", "--out", dir, "--reason", "month"), "nothing to archive")
	_, err = b.db.Exec(b.ctx, `DELETE FROM offset_ledger`)
	require.ErrorContains(t, err, "append-only")

	check := func() {
		t.Helper()
		require.Contains(t, b.must("ledger", "verify"), "the chains hold")
		require.Contains(t, b.must("audit", "--settled"), "--archive reads their files")
		require.NotContains(t, b.must("audit", "--settled", "--archive", dir), "--archive reads")
		files, err = os.ReadDir(dir)
		require.NoError(t, err)
		var lines []byte
		for _, f := range files {
			text, err := os.ReadFile(filepath.Join(dir, f.Name()))
			require.NoError(t, err)
			lines = append(lines, text...)
		}
		python := exec.CommandContext(b.ctx, "python3", "../../doc/verify_ledger.py")
		python.Stdin = strings.NewReader(string(lines) + b.must("ledger", "show", "--json"))
		out, err := python.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	check()
	b.work(400)
	check()
	require.Greater(t, b.scalar(`SELECT sum(ledger_seq)::bigint FROM partition_offsets`), all)

	name := filepath.Join(dir, files[0].Name())
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, []byte(strings.Replace(string(text), `"worker":"`, `"worker":"x`, 1)), 0o600))
	out, code := b.exactly("audit", "--archive", dir)
	require.Equal(t, 3, code, out)
	require.Contains(t, out, "is not the file that was written")
	require.Contains(t, out, "its fields do not make its hash")
	require.NoError(t, os.Remove(name))
	out, code = b.exactly("audit", "--archive", dir)
	require.Equal(t, 3, code, out)
	require.Contains(t, out, "is not in the folder")
}
