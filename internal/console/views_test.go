package console

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/config"
	"go.uber.org/zap"
)

// Each view, with real data: what it says is what SQL says.
func TestViews(t *testing.T) {
	b := setup(t)
	b.start("one")
	b.generate(3000)
	b.settled()
	w := b.browser()
	var at, user int64
	var n int32
	var ip, country string
	require.NoError(t, b.db.QueryRow(b.ctx, `SELECT source_partition, source_offset, user_id, host(ip), country FROM enriched_clicks ORDER BY 1, 2 OFFSET 700 LIMIT 1`).Scan(&n, &at, &user, &ip, &country))
	coordinate := fmt.Sprintf("%s/%d/%d", b.cfg.Topics.Input, n, at)

	code, page := w.get("/record?q=" + coordinate)
	require.Equal(t, http.StatusOK, code, page)
	require.Contains(t, page, "is once in Postgres and once in Kafka")
	require.NotContains(t, page, `chip bad`)
	require.Equal(t, 4, strings.Count(page, "<dd>"+fmt.Sprint(user)+"</dd>"), "click, row, outbox, event")
	require.Equal(t, 5, strings.Count(page, `<span class="chip good">equal</span></td>`)-1, "the checks, that of the ledger aside")
	require.NotContains(t, page, ip, "addresses are masked from viewers")

	code, page = w.get("/record?q=" + fmt.Sprint(user))
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, page, coordinate)

	code, page = w.get("/ledger?over=all")
	require.Equal(t, http.StatusOK, code)
	var entries int64
	require.NoError(t, b.db.QueryRow(b.ctx, `SELECT count(*) FROM offset_ledger WHERE source_id = (SELECT source_id FROM sources WHERE topic = $1)`, b.cfg.Topics.Input).Scan(&entries))
	require.Contains(t, page, strings.ReplaceAll(fmt.Sprintf("%d entries in 4 chains", entries), ",", ""))
	b.until("the heads agree", func() bool { _, page = w.get("/ledger?over=all"); return strings.Count(page, ">agrees<") == partitions })
	code, page = w.get("/ledger/0")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, page, ">follows<")
	require.NotContains(t, page, ">broken<")

	code, page = w.get("/letters")
	require.Equal(t, http.StatusOK, code)
	var letters int
	require.NoError(t, b.db.QueryRow(b.ctx, `SELECT count(*) FROM dead_letters`).Scan(&letters))
	require.Positive(t, letters)
	require.Equal(t, letters, strings.Count(page, `name="origin"`))

	code, _ = w.post("/audit", "/audit", url.Values{"settled": {"1"}})
	require.Equal(t, http.StatusOK, code)
	b.until("the audit is clean", func() bool { _, page = w.get("/audit"); return strings.Contains(page, "<strong>Clean.</strong>") })
	code, page = w.get("/audit/report")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, page, "<!doctype html>")
	code, page = w.post("/ledger", "/ledger/verify", url.Values{})
	require.Equal(t, http.StatusOK, code)
	b.until("the chains hold", func() bool { _, page = w.get("/ledger"); return strings.Contains(page, "The chains hold") })
}

// A row that was changed is shown as different, by name of the field, and so is an entry.
func TestDamageIsShown(t *testing.T) {
	b := setup(t)
	b.start("one")
	b.generate(500)
	b.settled()
	w := b.browser()
	_, err := b.db.Exec(b.ctx, `UPDATE enriched_clicks SET country = 'XX' WHERE source_partition = 1 AND source_offset = 5`)
	require.NoError(t, err)
	_, page := w.get("/record?q=1/5")
	require.Contains(t, page, `chip bad">different`)
	require.Contains(t, page, "they differ in country")
	tx, err := b.db.Begin(b.ctx)
	require.NoError(t, err)
	_, err = tx.Exec(b.ctx, `SET LOCAL session_replication_role = replica`)
	require.NoError(t, err)
	_, err = tx.Exec(b.ctx, `UPDATE offset_ledger SET rows = rows + 1 WHERE source_partition = 1 AND seq = 2`)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(b.ctx))
	_, page = w.get("/ledger/1")
	require.Contains(t, page, ">broken<")
	require.Contains(t, page, "its fields do not make its hash")
	_, page = w.get("/ledger/0")
	require.NotContains(t, page, ">broken<")
}

// Letters are handed in again by whoever may, and the ledger has that person's name. Whoever may not, can't.
func TestReplay(t *testing.T) {
	file, viewer, operator := people(t)
	b := setup(t, "EXACTLY_CONSOLE_WRITE=true", "EXACTLY_CONSOLE_TOKENS_FILE="+file)
	b.start("one")
	b.generate(2000)
	b.settled()
	deeds := func() (n int) {
		require.NoError(t, b.db.QueryRow(b.ctx, `SELECT count(*) FROM offset_ledger WHERE kind = 'replay'`).Scan(&n))
		return n
	}
	vera, otto := b.login(viewer), b.login(operator)
	_, page := otto.get("/letters")
	m := regexp.MustCompile(`name="origin" value="([^"]+)"`).FindStringSubmatch(page)
	require.NotNil(t, m)
	chosen := url.Values{"origin": {m[1]}, "reason": {"mended"}}

	code, _ := vera.post("/letters", "/letters/replay", chosen)
	require.Equal(t, http.StatusForbidden, code)
	code, page = vera.post("/letters", "/letters/plan", chosen)
	require.Equal(t, http.StatusOK, code)
	require.NotContains(t, page, `action="/console/letters/replay"`)
	code, _ = otto.post("/letters", "/letters/replay", url.Values{"origin": {m[1]}, "reason": {" "}})
	require.Equal(t, http.StatusBadRequest, code, "without a reason")
	require.Zero(t, deeds())

	code, page = otto.post("/letters", "/letters/plan", chosen)
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, page, "1 dead letter would be handed in again")
	require.Zero(t, deeds(), "a dry run does nothing")
	code, _ = otto.post("/letters", "/letters/replay", chosen)
	require.Equal(t, http.StatusOK, code)
	b.until("it has landed", func() bool {
		_, page = otto.get("/letters/watch")
		return strings.Contains(page, "All of it is in both sinks")
	})
	require.Equal(t, 1, deeds())
	var who, why string
	require.NoError(t, b.db.QueryRow(b.ctx, `SELECT who, why FROM offset_ledger WHERE kind = 'replay'`).Scan(&who, &why))
	require.Equal(t, "otto (console)", who)
	require.Contains(t, why, "mended")
}

// A console that only looks does nothing, whoever asks.
func TestReadOnly(t *testing.T) {
	file, _, operator := people(t)
	b := setup(t, "EXACTLY_CONSOLE_TOKENS_FILE="+file)
	otto := b.login(operator)
	code, page := otto.post("/letters", "/letters/replay", url.Values{"origin": {b.cfg.Topics.Input + "/0/1"}, "reason": {"x"}})
	require.Equal(t, http.StatusForbidden, code, page)
	_, err := b.console.db.Exec(b.ctx, `DELETE FROM workers`)
	require.ErrorContains(t, err, "read-only transaction")
}

// Viewers see no address in any view; operators do.
func TestAddressesAreMasked(t *testing.T) {
	file, viewer, operator := people(t)
	b := setup(t, "EXACTLY_CONSOLE_TOKENS_FILE="+file)
	b.start("one")
	b.generate(1000)
	b.settled()
	vera, otto := b.login(viewer), b.login(operator)
	var n int32
	var at int64
	var ip string
	require.NoError(t, b.db.QueryRow(b.ctx, `SELECT source_partition, source_offset, host(ip) FROM enriched_clicks LIMIT 1`).Scan(&n, &at, &ip))
	path := fmt.Sprintf("/record?q=%d/%d", n, at)
	_, page := otto.get(path)
	require.Contains(t, page, ip)
	_, page = vera.get(path)
	require.NotContains(t, page, ip)
	require.NotContains(t, page, "<pre", "raw bytes hold it, too")
	require.Contains(t, page, "masked")

	v, o := eyes{false}, eyes{true}
	for text, want := range map[string]string{
		"at 192.0.2.7: no": "at masked: no", "2001:db8::1 and 10.0.0.1:443": "masked and masked", "12:30:05 of 1.5": "12:30:05 of 1.5", "rule ip.address": "rule ip.address", "::1": "masked",
	} {
		require.Equal(t, want, v.text(text))
		require.Equal(t, text, o.text(text))
	}
}

// A worker's own console has its partitions, and nothing that can be done.
func TestWorkersOwn(t *testing.T) {
	b := setup(t, "EXACTLY_CONSOLE_WRITE=true", "EXACTLY_WORKER_ID=two")
	b.start("one")
	b.generate(300)
	b.settled()
	c, err := New(&b.cfg, Options{Build: "test", Worker: true, Addr: "127.0.0.1:8000", Log: zap.NewNop()})
	require.NoError(t, err)
	defer c.Close()
	require.Empty(t, c.now.Get(b.ctx).Strips, "they are one's")
	b.cfg.Worker.ID = "one"
	mine, err := New(&b.cfg, Options{Build: "test", Worker: true, Addr: "127.0.0.1:8000", Log: zap.NewNop()})
	require.NoError(t, err)
	defer mine.Close()
	require.Len(t, mine.now.Get(b.ctx).Strips, partitions)
	require.Len(t, c.views(), 2)
}

// What can be reached from other machines takes TLS, and somebody who may.
func TestBeyondLoopback(t *testing.T) {
	for _, c := range []struct {
		set  map[string]string
		want string
	}{
		{map[string]string{"console.addr": "0.0.0.0:1"}, "console.tls.cert"},
		{map[string]string{"console.addr": ":1", "console.tls.cert": "a", "console.tls.key": "b"}, "console.tokens_file"},
		{map[string]string{"console.tls.cert": "a"}, "console.tls.key"},
		{map[string]string{"console.enabled": "true", "http.addr": "0.0.0.0:8000"}, "console.enabled"},
	} {
		_, err := config.Load("", nil, c.set)
		require.ErrorContains(t, err, c.want)
	}
	_, err := config.Load("", nil, map[string]string{"console.enabled": "true"})
	require.NoError(t, err)
}
