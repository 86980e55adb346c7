package packaging

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

const composeDir = "configs/compose"

// ours is the image the Dockerfile makes, as compose calls it.
const ours = "exactly:dev"

// compose loads the file as docker compose does, schema and consistency checked.
func compose(t *testing.T, env map[string]string) *types.Project {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(root, composeDir))
	require.NoError(t, err)
	p, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir: dir, ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yaml")}}, Environment: env,
	})
	require.NoError(t, err)
	require.NotEmpty(t, p.Services)
	return p
}

// environment is what a service's process sees: the image's, then the service's.
func environment(t *testing.T, s types.ServiceConfig) map[string]string {
	t.Helper()
	env := map[string]string{}
	if s.Image == ours {
		for k, v := range built(t).env {
			env[k] = v
		}
	}
	for k, v := range s.Environment {
		require.NotNil(t, v, "%s: %s has no value: it would be taken from whoever starts it", s.Name, k)
		env[k] = *v
	}
	return env
}

// Our own services: commands and flags that exist, settings that are settings, a hardened container, an end that is waited for.
func TestComposeRunsTheProgram(t *testing.T) {
	p := compose(t, nil)
	workers := map[string]string{}
	commands := map[string]int{}
	for name, s := range p.Services {
		if s.Image != ours {
			continue
		}
		checkCommand(t, name, s.Command)
		commands[s.Command[0]]++
		c := settingsOK(t, name, "", environment(t, s))
		for what, host := range map[string]string{"broker": c.Kafka.Brokers, "registry": hostOf(t, c.Registry.URL), "postgres": hostOf(t, c.Postgres.DSN),
			"collector": hostOf(t, c.Telemetry.OTLPEndpoint)} {
			service, port, err := net.SplitHostPort(host)
			require.NoError(t, err, "%s: %s", name, what)
			require.Contains(t, p.Services, service, "%s: %s is at %s", name, what, host)
			if listeners := p.Services[service].Environment["KAFKA_LISTENERS"]; listeners != nil {
				require.Contains(t, *listeners, ":"+port)
			}
		}
		require.True(t, s.ReadOnly, name)
		require.Equal(t, []string{"ALL"}, s.CapDrop, name)
		require.Contains(t, s.SecurityOpt, "no-new-privileges:true", name)
		require.Equal(t, filepath.Clean(mustAbs(t, root)), filepath.Clean(s.Build.Context), name)
		if s.Command[0] != "run" {
			require.True(t, s.HealthCheck != nil && s.HealthCheck.Disable, "%s has no listener for the image's health check to ask", name)
			continue
		}
		require.Nil(t, s.HealthCheck, "%s: the image's is right", name)
		require.Greater(t, time.Duration(*s.StopGracePeriod), c.StopTimeout+2*time.Second, "%s is killed while it stops", name)
		require.Empty(t, workers[c.Worker.ID], "%s and %s have one worker id", name, workers[c.Worker.ID])
		require.Equal(t, name, c.Worker.ID)
		workers[c.Worker.ID] = name
	}
	require.Equal(t, map[string]int{"setup": 1, "run": 2, "generate": 1}, commands)
}

func mustAbs(t *testing.T, p string) string {
	t.Helper()
	abs, err := filepath.Abs(p)
	require.NoError(t, err)
	return abs
}

func hostOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	return u.Host
}

// checkCommand has the program itself parse the line, up to the point where it would do something.
func checkCommand(t *testing.T, what string, args []string) {
	t.Helper()
	require.NotEmpty(t, args, what)
	out, err := exec.Command(filepath.Join(built(t).root, built(t).entrypoint[0]), append(append([]string{}, args...), "--help")...).CombinedOutput()
	require.NoError(t, err, "%s: exactly %v: %s", what, args, out)
	words := args
	for i, a := range args {
		if strings.HasPrefix(a, "-") {
			words = args[:i]
			break
		}
	}
	require.Contains(t, string(out), "Usage:\n  exactly "+strings.Join(words, " ")+" ", "%s: no such command", what)
}

// What is waited for can happen; nothing floats, clashes, is missing or open to the network.
func TestComposeHoldsTogether(t *testing.T) {
	p := compose(t, nil)
	published := map[string]string{}
	for name, s := range p.Services {
		if s.Image != ours {
			require.Regexp(t, `^[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?(-[a-z0-9]+)?$`, s.Image, "%s: an exact version", name)
		}
		for _, port := range s.Ports {
			require.Equal(t, "127.0.0.1", port.HostIP, "%s: %s is open to the network", name, port.Published)
			require.Empty(t, published[port.Published], "%s and %s publish the port %s", name, published[port.Published], port.Published)
			published[port.Published] = name
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				require.FileExists(t, firstFile(t, v.Source), "%s mounts it", name)
				require.True(t, v.ReadOnly, "%s may write to %s", name, v.Source)
			}
		}
		for on, d := range s.DependsOn {
			switch other := p.Services[on]; d.Condition {
			case types.ServiceConditionHealthy:
				require.NotNil(t, other.HealthCheck, "%s waits for %s to be healthy, which has no health check", name, on)
				require.Equal(t, "CMD", other.HealthCheck.Test[0], on)
			case types.ServiceConditionCompletedSuccessfully:
				require.Empty(t, other.Restart, "%s waits for %s to end, which is started again and again", name, on)
			default:
				require.Failf(t, "a start is no readiness", "%s waits for %s only to be started", name, on)
			}
		}
	}
	for name, v := range p.Volumes {
		require.Empty(t, v.External, name)
	}
}

// firstFile is a file that is mounted: the path itself, or any in the folder.
func firstFile(t *testing.T, p string) string {
	t.Helper()
	found := p
	if info, err := os.Stat(p); err == nil && info.IsDir() {
		require.NoError(t, filepath.WalkDir(p, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				found = path
			}
			return err
		}))
	}
	return found
}

// Every password says what it is, and can be replaced everywhere at once.
func TestComposeHasNoSecrets(t *testing.T) {
	secret := regexp.MustCompile(`(?i)password|secret|token|dsn`)
	for _, own := range []map[string]string{nil, {"POSTGRES_PASSWORD": "p1", "GRAFANA_PASSWORD": "p2"}} {
		found := 0
		for name, s := range compose(t, own).Services {
			for k, v := range s.Environment {
				if !secret.MatchString(k) || v == nil {
					continue
				}
				found++
				require.Equal(t, own == nil, strings.Contains(*v, "development-only"), "%s: %s", name, k)
			}
		}
		require.Positive(t, found)
	}
}

// Prometheus scrapes the workers, all of them, under the name the alerts go by; Grafana finds both of its sources and the dashboard.
func TestComposeObserves(t *testing.T) {
	p := compose(t, nil)
	var prom struct {
		Global map[string]string `json:"global"`
		Rules  []string          `json:"rule_files"`
		Scrape []struct {
			Job    string `json:"job_name"`
			Static []struct {
				Targets []string `json:"targets"`
			} `json:"static_configs"`
		} `json:"scrape_configs"`
	}
	require.NoError(t, yaml.UnmarshalStrict(read(t, composeDir+"/prometheus.yml"), &prom))
	require.Len(t, prom.Scrape, 1)
	require.Equal(t, "exactly", prom.Scrape[0].Job)
	for _, r := range alerts(t) {
		for _, m := range regexp.MustCompile(`job="([^"]*)"`).FindAllStringSubmatch(r.Expr, -1) {
			require.Equal(t, prom.Scrape[0].Job, m[1], r.Alert)
		}
	}
	var workers []string
	for name, s := range p.Services {
		if s.Image == ours && s.Command[0] == "run" {
			_, port, err := net.SplitHostPort(settingsOK(t, name, "", environment(t, s)).HTTP.Addr)
			require.NoError(t, err)
			workers = append(workers, net.JoinHostPort(name, port))
		}
	}
	require.ElementsMatch(t, workers, prom.Scrape[0].Static[0].Targets)
	require.Len(t, prom.Rules, 2)
	for i, name := range []string{"recording.yml", "alerts.yml"} { // what is recorded first, so that alerts ask for what is new
		require.Equal(t, filepath.Join(mustAbs(t, root), "configs/prometheus", name), mounted(t, p.Services["prometheus"], prom.Rules[i]))
	}
	require.Contains(t, p.Services["prometheus"].Command, "--enable-feature=exemplar-storage")

	var sources struct {
		Datasources []struct {
			UID, Type, URL string
			JSONData       struct {
				Exemplars []struct{ Name, DatasourceUID string } `json:"exemplarTraceIdDestinations"`
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(read(t, composeDir+"/grafana/provisioning/datasources/datasources.yaml"), &sources))
	require.Equal(t, "trace_id", sources.Datasources[0].JSONData.Exemplars[0].Name, "what the program's exemplars call it")
	require.Equal(t, sources.Datasources[1].UID, sources.Datasources[0].JSONData.Exemplars[0].DatasourceUID)
	for _, d := range sources.Datasources {
		host, port, err := net.SplitHostPort(hostOf(t, d.URL))
		require.NoError(t, err)
		require.Contains(t, p.Services, host, d.UID)
		require.Equal(t, port, portOf(p.Services[host]), d.UID)
	}
	var providers struct {
		Providers []struct{ Options struct{ Path string } }
	}
	require.NoError(t, yaml.Unmarshal(read(t, composeDir+"/grafana/provisioning/dashboards/dashboards.yaml"), &providers))
	grafana := p.Services["grafana"]
	for _, name := range dashboards {
		require.FileExists(t, filepath.Join(mounted(t, grafana, providers.Providers[0].Options.Path), name))
	}
	require.FileExists(t, mounted(t, grafana, *grafana.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]))
	require.DirExists(t, mounted(t, grafana, "/etc/grafana/provisioning/datasources"))
}

func portOf(s types.ServiceConfig) string {
	if len(s.Ports) == 0 {
		return ""
	}
	return fmt.Sprint(s.Ports[0].Target)
}

// mounted is the path on this machine that a service sees at target.
func mounted(t *testing.T, s types.ServiceConfig, target string) string {
	t.Helper()
	for _, v := range s.Volumes {
		if rest, ok := strings.CutPrefix(target, v.Target); ok && v.Type == types.VolumeTypeBind && (rest == "" || rest[0] == '/') {
			return filepath.Join(v.Source, rest)
		}
	}
	require.Failf(t, "not mounted", "%s: %s", s.Name, target)
	return ""
}
