package behaviour

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// follow runs `exactly audit --follow`.
func (b *bundle) follow() *worker {
	b.t.Helper()
	w := &worker{b: b, id: "audit --follow", log: &teststack.Log{}, done: make(chan struct{})}
	w.cmd = exec.Command(shared.Bin, "audit", "--follow", "--every", "100ms")
	w.cmd.Env = append(os.Environ(), b.environ()...)
	w.cmd.Stdout, w.cmd.Stderr = w.log, w.log
	require.NoError(b.t, w.cmd.Start())
	go func() { _ = w.cmd.Wait(); close(w.done) }() //nolint:errcheck // how it ended is in ProcessState
	b.workers = append(b.workers, w)
	return w
}

// What the audit's flags promise, of the program itself.
func TestAuditFlags(t *testing.T) {
	b := setup(t)
	b.generate(400)
	w := b.start("a")
	b.settle()
	report := func(args ...string) (r audit.Report) {
		t.Helper()
		out := b.exactly(append([]string{"audit", "--json"}, args...)...)
		require.NoError(t, json.Unmarshal([]byte(out[strings.IndexByte(out, '{'):]), &r), out)
		return r
	}
	anchor, page := filepath.Join(t.TempDir(), "anchor"), filepath.Join(t.TempDir(), "audit.html")
	lines := func() int {
		all, err := os.ReadFile(anchor)
		require.NoError(t, err)
		return strings.Count(string(all), "\n")
	}
	require.EqualValues(t, b.sent, report("--settled", "--anchor", anchor, "--html", page).Totals.Input)
	one := lines()
	require.Positive(t, one)
	html, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Contains(t, string(html), "is in Postgres once and in Kafka once")
	report("--anchor", anchor)
	require.Equal(t, 2*one, lines())

	require.EqualValues(t, b.sent, report("--since", "1h").Totals.Input)
	require.EqualValues(t, b.sent, report("--until", time.Now().Add(time.Minute).UTC().Format(time.RFC3339)).Totals.Input)
	require.Zero(t, report("--until", "1h").Totals.Input)
	require.Zero(t, report("--since", "2h", "--until", "1h").Totals.Input)
	for _, wrong := range [][]string{{"--since", "x"}, {"--since", "1h", "--until", "2h"}, {"--follow", "--since", "1h"}, {"--follow", "--every", "0s"}} {
		out, code := b.try(append([]string{"audit"}, wrong...)...)
		require.Equal(t, 2, code, "%v: %s", wrong, out)
	}

	f := b.follow()
	f.says(`clean: each of the 400 input records.* not proven yet: 0`)
	b.generate(300)
	f.says(`clean: each of the [0-9]+ input records captured[^\n]*not proven yet: 0[^\n]*\n(?s:.*)clean: nothing new; not proven yet: 0`)
	b.until("the clicks that came are proven", func() bool {
		return b.published() == b.sent && strings.Contains(f.log.Tail(), "clean: nothing new; not proven yet: 0")
	})
	f.stop()
	w.stop()

	_, err = b.db.Exec(b.ctx, `UPDATE enriched_clicks SET url = url || 'x' WHERE (source_partition, source_offset) = (SELECT source_partition, source_offset FROM enriched_clicks LIMIT 1)`)
	require.NoError(t, err)
	f = b.follow()
	f.says(`different rows`)
	f.says(`NOT clean: 1 different`)
	f.signal(syscall.SIGTERM)
	<-f.done
	require.Equal(t, 3, f.cmd.ProcessState.ExitCode(), f.log.Tail())
	out, code := b.try("audit", "--html", page)
	require.Equal(t, 3, code, out)
	html, err = os.ReadFile(page)
	require.NoError(t, err)
	require.Contains(t, string(html), "differ in url")
}
