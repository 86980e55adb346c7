//go:build browser

package browser

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

//go:embed testdata/axe.min.js
var axe string

// accessible requires that axe-core finds nothing serious or critical on the page shown.
func (w *world) accessible(what string) {
	w.t.Helper()
	found := w.violations()
	require.Empty(w.t, found, what)
}

// violations are what axe finds on the page shown that is serious or worse.
func (w *world) violations() []string {
	w.t.Helper()
	eval[int](w, axe+"; 0")
	return eval[[]string](w, `axe.run(document, {resultTypes: ["violations"]}).then((r) => r.violations
		.filter((v) => v.impact === "serious" || v.impact === "critical").map((v) => v.id + ": " + v.nodes.map((n) => n.target + " " + n.failureSummary).slice(0, 3).join("; ")))`)
}

// fits requires that the page is no wider than its window.
func (w *world) fits(what string) {
	w.t.Helper()
	over := eval[int](w, `document.documentElement.scrollWidth - window.innerWidth`)
	require.LessOrEqual(w.t, over, 0, "%s is wider than its window", what)
}

// deployment has two workers at work and some thousand clicks, with dead letters among them.
func deployment(t *testing.T) *world {
	w := setup(t)
	w.start("worker-1", "run")
	w.start("worker-2", "run")
	w.run(w.ctx, "generate", "--rate", "0", "--count", "8000", "--seed", "7", "--bad-share", "0.01")
	w.until("all is captured, by both", func() bool {
		n, _ := w.stored("")
		_, one := w.stored("worker-1")
		_, two := w.stored("worker-2")
		return n == 8000 && one > 0 && two > 0
	})
	return w
}

// views are all there are, with what must be on them.
func (w *world) views() map[string]string {
	var n int32
	var at int64
	var origin string
	require.NoError(w.t, w.db.QueryRow(w.ctx, `SELECT source_partition, source_offset FROM enriched_clicks ORDER BY 1, 2 OFFSET 500 LIMIT 1`).Scan(&n, &at))
	require.NoError(w.t, w.db.QueryRow(w.ctx, `SELECT s.topic || '/' || source_partition || '/' || source_offset FROM dead_letters JOIN sources s USING (source_id) LIMIT 1`).Scan(&origin))
	return map[string]string{
		"/": "12 partitions of", fmt.Sprintf("/record?q=%d/%d", n, at): "once in Postgres and once in Kafka", "/record": "What can be asked for", "/record?q=12": "Clicks of user 12",
		"/ledger?over=15m": "entries in 12 chains", "/ledger/3": "Each entry shown here", "/letters?since=1h": "By what was wrong", "/letters/one?origin=" + origin: "Dead letter", "/audit": "Run the audit",
	}
}

// Each view, dark and light, wide and narrow: it shows what it should, fits, and axe finds nothing serious.
func TestViews(t *testing.T) {
	w := deployment(t)
	for path, says := range w.views() {
		w.size(1360, 900)
		w.scheme("light")
		w.open(path)
		w.until(path+" says "+says, func() bool { return strings.Contains(w.text("main"), says) })
		w.accessible(path + ", light")
		w.fits(path)
		w.scheme("dark")
		w.accessible(path + ", dark")
		w.size(390, 800)
		w.fits(path + ", narrow")
		w.accessible(path + ", narrow")
	}
	w.clean()
}

// A worker is killed while somebody watches: without loading the page again, its partitions are seen to become the other's.
func TestKillWatchedLive(t *testing.T) {
	w := setup(t)
	one := w.start("worker-1", "run")
	w.start("worker-2", "run")
	w.start("", "generate", "--rate", "400", "--count", "1000000", "--bad-share", "0")
	w.until("both have some", func() bool {
		_, a := w.stored("worker-1")
		_, b := w.stored("worker-2")
		return a > 0 && b > 0 && a+b == 12
	})
	w.open("/")
	eval[int](w, `window.still = true; 0`)
	w.until("the console has both", func() bool {
		s := w.text(".strips")
		return strings.Contains(s, "worker-1") && strings.Contains(s, "worker-2")
	})
	require.NoError(t, one.Process.Kill())
	w.until("the take-over is seen", func() bool { return strings.Contains(w.text(".events"), "claimed by worker-2") })
	w.until("all strips are worker-2's", func() bool {
		return strings.Count(w.text(".strips"), "worker-2") == 12 && !strings.Contains(w.text(".strips"), "worker-1")
	})
	require.True(t, eval[bool](w, `window.still === true`), "the page was loaded again")
	n, owned := w.stored("worker-2")
	require.Positive(t, n)
	require.Equal(t, 12, owned)
	w.clean()
}

// A letter is handed in again by clicking, and it is watched until it has landed.
func TestReplayByClicking(t *testing.T) {
	w := deployment(t)
	w.open("/letters?since=1h")
	w.do("choose and try", chromedp.Click(chromedp.CSS(`input[name="origin"]`)), chromedp.Click(chromedp.CSS(`form[action$="/letters/plan"] button`)), chromedp.WaitVisible(chromedp.CSS(`#reason`)))
	require.Contains(t, w.text("main"), "1 dead letter would be handed in again")
	w.do("say why, and do it", chromedp.SendKeys(chromedp.CSS(`#reason`), "mended by hand"), chromedp.Click(chromedp.CSS(`form[action$="/letters/replay"] button`)), chromedp.WaitVisible(chromedp.CSS(`#watch`)))
	w.until("it has landed", func() bool { return strings.Contains(w.text("#watch"), "All of it is in both sinks") })
	var why string
	require.NoError(t, w.db.QueryRow(w.ctx, `SELECT why FROM offset_ledger WHERE kind = 'replay'`).Scan(&why))
	require.Contains(t, why, "mended by hand")
	w.accessible("/letters/watch")
	w.clean()
}

// An audit is run by clicking, and its verdict comes by itself.
func TestAuditByClicking(t *testing.T) {
	w := deployment(t)
	w.open("/audit")
	w.do("run it", chromedp.Click(chromedp.CSS(`form[action$="/audit"] button.main`)), chromedp.WaitVisible(chromedp.CSS(`#audit`)))
	w.until("its verdict is there", func() bool { return strings.Contains(w.text("#audit"), "Clean.") })
	w.accessible("/audit")
	w.clean()
}

// The keyboard gets everywhere, first past the bar; the theme changes without a new page, and stays.
func TestKeyboardAndTheme(t *testing.T) {
	w := setup(t)
	w.scheme("light")
	w.open("/")
	w.do("tab", chromedp.KeyEvent(kb.Tab))
	require.Equal(t, "skip", eval[string](w, `document.activeElement.className`))
	paper := func() string { return eval[string](w, `getComputedStyle(document.body).backgroundColor`) }
	light := paper()
	w.do("change", chromedp.Focus(chromedp.CSS(`form[data-theme-form] button`)), chromedp.KeyEvent(kb.Enter))
	w.until("it is dark", func() bool { return paper() != light })
	dark := paper()
	eval[int](w, `document.querySelector("main").insertAdjacentHTML("beforeend", "<img src=''><input>"); 0`)
	require.GreaterOrEqual(t, len(w.violations()), 2, "axe must find what is wrong")
	w.until("it stays so", func() bool { w.open("/audit"); return paper() == dark })
	w.clean()
}
