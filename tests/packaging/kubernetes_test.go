package packaging

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

// manifests are the files of configs/kubernetes, each document decoded strictly into the API's own type.
type manifests struct {
	config     corev1.ConfigMap
	service    corev1.Service
	account    corev1.ServiceAccount
	disruption policyv1.PodDisruptionBudget
	workers    appsv1.StatefulSet
	setup      batchv1.Job
}

func kubernetes(t *testing.T) *manifests {
	t.Helper()
	m := &manifests{}
	into := map[string]any{
		"v1 ConfigMap": &m.config, "v1 Service": &m.service, "v1 ServiceAccount": &m.account, "policy/v1 PodDisruptionBudget": &m.disruption,
		"apps/v1 StatefulSet": &m.workers, "batch/v1 Job": &m.setup,
	}
	files, err := filepath.Glob(filepath.Join(root, "configs/kubernetes/*.yaml"))
	require.NoError(t, err)
	for _, f := range files {
		name, err := filepath.Rel(root, f)
		require.NoError(t, err)
		for _, doc := range strings.Split(string(read(t, name)), "\n---\n") {
			var head struct{ APIVersion, Kind string }
			require.NoError(t, yaml.Unmarshal([]byte(doc), &head), name)
			kind := head.APIVersion + " " + head.Kind
			require.Contains(t, into, kind, name)
			require.NoError(t, yaml.UnmarshalStrict([]byte(doc), into[kind]), "%s: %s", name, kind)
			delete(into, kind)
		}
	}
	require.Empty(t, into, "missing")
	return m
}

// env is what a container's process sees, and the settings file it is told to read. What Kubernetes fills in is shown as it would be.
func (m *manifests) env(t *testing.T, c corev1.Container) (env map[string]string, file string) {
	t.Helper()
	env = map[string]string{}
	for k, v := range built(t).env {
		env[k] = v
	}
	for _, e := range c.Env {
		switch from := e.ValueFrom; {
		case from == nil:
			env[e.Name] = e.Value
		case from.FieldRef != nil:
			require.Equal(t, "metadata.name", from.FieldRef.FieldPath)
			env[e.Name] = m.workers.Name + "-0"
		case from.SecretKeyRef != nil:
			require.Equal(t, "exactly-postgres/dsn", from.SecretKeyRef.Name+"/"+from.SecretKeyRef.Key, "the file's head says how to make it")
			env[e.Name] = "postgres://exactly@postgres/exactly"
		default:
			require.Fail(t, "not looked at here", "%s", e.Name)
		}
	}
	for i, a := range c.Args {
		if a == "--config" {
			require.Equal(t, c.VolumeMounts[0].MountPath, filepath.Dir(c.Args[i+1]))
			require.True(t, c.VolumeMounts[0].ReadOnly)
			file = m.config.Data[filepath.Base(c.Args[i+1])]
		}
	}
	require.NotEmpty(t, file)
	return env, file
}

// checkPod is what holds for every pod: it may do nothing but run the program.
func (m *manifests) checkPod(t *testing.T, p corev1.PodSpec) corev1.Container {
	t.Helper()
	require.Len(t, p.Containers, 1)
	c := p.Containers[0]
	checkCommand(t, c.Name, c.Args)
	require.Empty(t, c.Command, "the image's entry point is right")
	require.Equal(t, m.account.Name, p.ServiceAccountName)
	require.False(t, *p.AutomountServiceAccountToken)
	require.False(t, *p.EnableServiceLinks, "a Service named exactly makes variables that look like settings")
	require.True(t, *p.SecurityContext.RunAsNonRoot)
	user, _, _ := strings.Cut(built(t).user, ":")
	require.EqualValues(t, number(t, user), *p.SecurityContext.RunAsUser, "the image's user")
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, p.SecurityContext.SeccompProfile.Type)
	require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
	require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
	require.Regexp(t, `:\d+\.\d+\.\d+$`, c.Image)
	require.NotEmpty(t, c.Resources.Limits.Memory().String())
	require.Len(t, p.Volumes, 1)
	require.Equal(t, c.VolumeMounts[0].Name, p.Volumes[0].Name)
	require.Equal(t, m.config.Name, p.Volumes[0].ConfigMap.Name)
	return c
}

func TestKubernetesWorkers(t *testing.T) {
	m := kubernetes(t)
	pod := m.workers.Spec.Template
	c := m.checkPod(t, pod.Spec)
	require.Equal(t, "run", c.Args[0])
	env, file := m.env(t, c)
	require.NotContains(t, env, "EXACTLY_KAFKA_BROKERS", "the environment would win over the file")
	cfg := settingsOK(t, "worker", file, env)
	require.Equal(t, "exactly-0", cfg.Worker.ID, "the pod's name: the same after a restart")

	grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	require.Greater(t, grace, cfg.StopTimeout+5*time.Second, "killed while it stops")
	require.Equal(t, ":8000", cfg.HTTP.Addr)
	require.EqualValues(t, 8000, c.Ports[0].ContainerPort)
	require.Equal(t, "8000", pod.Annotations["prometheus.io/port"])
	require.Equal(t, "/healthz", c.LivenessProbe.HTTPGet.Path, "/readyz would restart a worker for a held partition")
	require.Equal(t, "/readyz", c.ReadinessProbe.HTTPGet.Path)
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe} {
		require.Equal(t, c.Ports[0].Name, p.HTTPGet.Port.StrVal)
	}

	require.Equal(t, m.service.Name, m.workers.Spec.ServiceName)
	require.Equal(t, corev1.ClusterIPNone, m.service.Spec.ClusterIP)
	require.Equal(t, c.Ports[0].Name, m.service.Spec.Ports[0].TargetPort.StrVal)
	for what, selector := range map[string]map[string]string{
		"statefulset": m.workers.Spec.Selector.MatchLabels, "service": m.service.Spec.Selector, "budget": m.disruption.Spec.Selector.MatchLabels,
		"spread": pod.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
	} {
		require.Equal(t, pod.Labels, selector, "%s selects other pods", what)
	}
}

func TestKubernetesSetup(t *testing.T) {
	m := kubernetes(t)
	c := m.checkPod(t, m.setup.Spec.Template.Spec)
	require.Equal(t, "setup", c.Args[0])
	require.Equal(t, m.workers.Spec.Template.Spec.Containers[0].Image, c.Image, "the program that migrates is the one that runs")
	env, file := m.env(t, c)
	settingsOK(t, "setup", file, env)
	require.NotEqual(t, m.workers.Spec.Template.Labels, m.setup.Spec.Template.Labels, "the Service would count it among the workers")
}
