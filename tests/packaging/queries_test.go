package packaging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
	"github.com/exactly-pipeline/exactly/ledger"
)

// rule is an alert of configs/prometheus/alerts.yml, or a record of recording.yml.
type rule struct {
	Alert       string            `json:"alert"`
	Record      string            `json:"record"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func rulesOf(t *testing.T, name string) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []rule `json:"rules"`
		} `json:"groups"`
	}
	require.NoError(t, yaml.UnmarshalStrict(read(t, "configs/prometheus/"+name), &file))
	require.Len(t, file.Groups, 1)
	require.NotEmpty(t, file.Groups[0].Rules)
	return file.Groups[0].Rules
}

func alerts(t *testing.T) []rule { return rulesOf(t, "alerts.yml") }

// recorded are the labels of what recording.yml records, by its name.
func recorded(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, r := range rulesOf(t, "recording.yml") {
		require.Regexp(t, `^exactly:[a-z_]+:[a-z0-9_]+$`, r.Record)
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
		require.NoError(t, err, r.Record)
		out[r.Record] = []string{}
		if a, ok := expr.(*parser.AggregateExpr); ok {
			out[r.Record] = append(out[r.Record], a.Grouping...)
		}
	}
	return out
}

// panel is what of a Grafana panel is looked at.
type panel struct {
	ID          int    `json:"id"`
	Type        string `json:"type"`
	Title       string `json:"title"`
	Description string `json:"description"`
	Datasource  *struct {
		Type, UID string
	} `json:"datasource"`
	GridPos struct{ X, Y, W, H int } `json:"gridPos"`
	Targets []struct {
		RefID string `json:"refId"`
		Expr  string `json:"expr"`
	} `json:"targets"`
}

// dashboards are those of configs/grafana.
var dashboards = []string{"exactly.json", "partition.json", "latency.json", "chaos.json"}

func dashboard(t *testing.T, name string) []panel {
	t.Helper()
	var d struct {
		UID, Title    string
		SchemaVersion int
		Panels        []panel
		Templating    struct {
			List []struct {
				Name, Type string
				Query      any
			}
		}
	}
	require.NoError(t, json.Unmarshal(read(t, "configs/grafana/"+name), &d))
	require.NotEmpty(t, d.UID)
	require.NotEmpty(t, d.Title)
	require.Positive(t, d.SchemaVersion)
	require.Equal(t, "datasource", d.Templating.List[0].Name)
	return d.Panels
}

// queries are all PromQL there is, by where it stands.
func queries(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, r := range alerts(t) {
		all["alert "+r.Alert] = r.Expr
	}
	for _, r := range rulesOf(t, "recording.yml") {
		all["record "+r.Record] = r.Expr
	}
	for _, name := range dashboards {
		for _, p := range dashboard(t, name) {
			for _, q := range p.Targets {
				all[fmt.Sprintf("%s, panel %q %s", name, p.Title, q.RefID)] = strings.ReplaceAll(q.Expr, "$__rate_interval", "1m")
			}
		}
	}
	return all
}

func TestDashboards(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "configs/grafana/*.json"))
	require.NoError(t, err)
	require.Len(t, files, len(dashboards))
	uids := map[string]bool{}
	for _, name := range dashboards {
		var d struct{ UID string }
		require.NoError(t, json.Unmarshal(read(t, "configs/grafana/"+name), &d))
		require.False(t, uids[d.UID], "%s: another has its uid", name)
		uids[d.UID] = true
		t.Run(name, func(t *testing.T) { checkPanels(t, dashboard(t, name)) })
	}
}

func checkPanels(t *testing.T, panels []panel) {
	t.Helper()
	ids := map[int]bool{}
	var taken []panel
	for _, p := range panels {
		require.False(t, ids[p.ID], "panel %q: another has the id %d", p.Title, p.ID)
		ids[p.ID] = true
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, "panel %q is wider than the grid", p.Title)
		for _, o := range taken {
			apart := p.GridPos.X >= o.GridPos.X+o.GridPos.W || o.GridPos.X >= p.GridPos.X+p.GridPos.W ||
				p.GridPos.Y >= o.GridPos.Y+o.GridPos.H || o.GridPos.Y >= p.GridPos.Y+p.GridPos.H
			require.True(t, apart, "panels %q and %q overlap", p.Title, o.Title)
		}
		taken = append(taken, p)
		if p.Type == "row" {
			continue
		}
		require.NotEmpty(t, p.Title)
		require.NotNil(t, p.Datasource, p.Title)
		require.Equal(t, "${datasource}", p.Datasource.UID, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		refs := map[string]bool{}
		for _, q := range p.Targets {
			require.False(t, refs[q.RefID], "panel %q: two queries %s", p.Title, q.RefID)
			refs[q.RefID] = true
		}
	}
}

// Each alert is explained, and none that does not exist.
func TestAlertsAreExplained(t *testing.T) {
	var names []string
	for _, r := range alerts(t) {
		require.Regexp(t, `^\d+[sm]$`, r.For, r.Alert)
		require.Contains(t, []string{"critical", "warning"}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		names = append(names, r.Alert)
	}
	_, section, found := strings.Cut(string(read(t, "doc/operations.md")), "\n## Alerts\n")
	require.True(t, found, `doc/operations.md has no section "Alerts"`)
	section, _, _ = strings.Cut(section, "\n## ")
	var told []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(Exactly[A-Za-z]+)` \\| (critical|warning) \\| [^|]+ \\| [^|]+ \\|$").FindAllStringSubmatch(section, -1) {
		told = append(told, m[1])
		i := slices.Index(names, m[1])
		require.GreaterOrEqual(t, i, 0, "doc/operations.md explains %s, which does not exist", m[1])
		require.Equal(t, alerts(t)[i].Labels["severity"], m[2], m[1])
	}
	require.ElementsMatch(t, names, told)
}

// Each alert has a case in which it fires, and one in which it must not. `make rules` has promtool try them.
func TestAlertsAreTried(t *testing.T) {
	var file struct {
		Tests []struct {
			Name  string `json:"name"`
			Rules []struct {
				Alert string `json:"alertname"`
				Fires []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	require.NoError(t, yaml.Unmarshal(read(t, "configs/prometheus/tests.yml"), &file))
	fires, quiet := map[string]int{}, map[string]int{}
	for _, c := range file.Tests {
		for _, r := range c.Rules {
			if len(r.Fires) > 0 {
				fires[r.Alert]++
			} else {
				quiet[r.Alert]++
			}
		}
	}
	for _, r := range alerts(t) {
		require.Equal(t, 1, fires[r.Alert], "%s: no case in which it fires", r.Alert)
		require.Equal(t, 1, quiet[r.Alert], "%s: no case in which it is quiet", r.Alert)
	}
	require.Len(t, fires, len(alerts(t)), "a case of an alert that does not exist")
}

// What dashboards and alerts ask for is there as soon as a worker has partitions.
func TestQueriesAskForWhatExists(t *testing.T) {
	m := telemetry.NewMetrics(telemetry.Identity{Build: "v1", Worker: "w1", Topic: "in", Group: "g"})
	m.State(0, engine.Consuming)
	m.Offsets(0, 10, 5)
	m.LogEnds(map[int32]int64{0: 20})
	m.Claimed(0, &engine.Claim{Epoch: 1, Head: &ledger.Head{At: "2026-01-31T10:00:00Z"}})
	m.Failed(0, engine.ReasonPostgres)
	m.Geo(time.Unix(0, 0), func() (int64, int64) { return 0, 0 })
	addr := free(t)
	require.NoError(t, m.Serve(t.Context(), addr))
	checkQueries(t, get(t, "http://"+addr+"/metrics"))
}

// auditMetrics is what an audit that goes on shows after its first round.
func auditMetrics(t *testing.T) string {
	t.Helper()
	m := telemetry.NewAuditMetrics("v1")
	m.Round(&audit.Report{Found: map[audit.Class]int64{audit.Missing: 1}, Partitions: []audit.PartitionReport{{Partition: 0, Stored: 10, Verified: 7}}})
	addr := free(t)
	require.NoError(t, m.Serve(t.Context(), addr))
	return get(t, "http://"+addr+"/metrics")
}

// checkQueries holds every query against what a worker really shows: metrics, labels, and the values that are asked for by name. Metrics
// that begin with absent are taken to be there.
func checkQueries(t *testing.T, text string, absent ...string) {
	t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err)
	audits, err := p.TextToMetricFamilies(strings.NewReader(auditMetrics(t)))
	require.NoError(t, err)
	for name, f := range audits {
		if families[name] == nil {
			families[name] = f
		}
	}
	all := queries(t)
	require.Greater(t, len(all), 20)
	for where, query := range all {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
		require.NoError(t, err, "%s: %s", where, query)
		has, all := map[string]bool{}, true
		parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
			s, ok := n.(*parser.VectorSelector)
			switch {
			case !ok:
			case slices.ContainsFunc(absent, func(a string) bool { return strings.HasPrefix(s.Name, a) }):
				all = false
			default:
				for l := range checkSelector(t, where, s, families) {
					has[l] = true
				}
			}
			return nil
		})
		parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
			if a, ok := n.(*parser.AggregateExpr); ok {
				for _, l := range a.Grouping {
					require.True(t, has[l] || !all, "%s: by (%s): no series has it", where, l)
				}
			}
			return nil
		})
	}
}

// checkSelector returns the labels the selected series have.
func checkSelector(t *testing.T, where string, s *parser.VectorSelector, families map[string]*dto.MetricFamily) map[string]bool {
	t.Helper()
	has := map[string]bool{"job": true, "instance": true} // Prometheus adds them
	switch s.Name {
	case "up": // likewise
		return has
	case "kafka_consumer_lag": // its series come and go with Kafka's answers
		for _, l := range []string{"topic", "partition", "group"} {
			has[l] = true
		}
		return has
	case "ALERTS":
		has["alertstate"], has["alertname"] = true, true
		return has
	}
	if of, ok := recorded(t)[s.Name]; ok {
		for _, l := range of {
			has[l] = true
		}
		return has
	}
	name := s.Name
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if base, ok := strings.CutSuffix(s.Name, suffix); ok && families[base].GetType() == dto.MetricType_HISTOGRAM {
			name, has["le"] = base, has["le"] || suffix == "_bucket"
		}
	}
	require.NotNil(t, families[name], "%s: neither a worker nor an audit has the metric %s", where, name)
	values := map[string][]string{"state": states(t)}
	for _, m := range families[name].GetMetric() {
		for _, l := range m.GetLabel() {
			has[l.GetName()] = true
			values[l.GetName()] = append(values[l.GetName()], l.GetValue())
		}
	}
	for _, m := range s.LabelMatchers {
		if m.Name == model.MetricNameLabel || m.Name == "job" {
			continue
		}
		require.True(t, has[m.Name], "%s: %s has no label %s", where, name, m.Name)
		wanted := []string{m.Value}
		if m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp {
			wanted = strings.Split(m.Value, "|")
		}
		for _, w := range wanted {
			if strings.HasPrefix(w, "$") { // a variable of the dashboard's
				continue
			}
			require.Contains(t, values[m.Name], w, "%s: %s is never %q", where, m.Name, w)
		}
	}
	return has
}

// states are those a partition can be in.
func states(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^\t\w+\s+State = "([a-z-]+)"`).FindAllSubmatch(read(t, "engine/machine.go"), -1) {
		out = append(out, string(bytes.Clone(m[1])))
	}
	require.Contains(t, out, "consuming")
	return out
}
