package packaging

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const kubernetesDir = "configs/kubernetes"

// overlays there are, and what each has of those things that not all have.
var overlays = map[string][]string{
	"development":    nil,
	"production":     {"ScaledObject", "ServiceMonitor", "Role", "RoleBinding"},
	"production-hpa": {"HorizontalPodAutoscaler", "ServiceMonitor", "Role", "RoleBinding"},
}

// manifests are what an overlay makes, each document decoded strictly into the API's own type.
type manifests struct {
	overlay    string
	kinds      []string
	config     corev1.ConfigMap
	service    corev1.Service
	account    corev1.ServiceAccount
	network    networkingv1.NetworkPolicy
	disruption policyv1.PodDisruptionBudget
	workers    appsv1.StatefulSet
	setup      batchv1.Job
	autoscaler autoscalingv2.HorizontalPodAutoscaler
	scaled     scaledObject
	monitor    serviceMonitor
	role       rbacv1.Role
	binding    rbacv1.RoleBinding
}

// kustomized builds an overlay as kubectl apply -k does.
func kustomized(t *testing.T, overlay string) *manifests {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(root, kubernetesDir, "overlays", overlay))
	require.NoError(t, err, overlay)
	m := &manifests{overlay: overlay}
	into := map[string]any{
		"v1 ConfigMap": &m.config, "v1 Service": &m.service, "v1 ServiceAccount": &m.account, "policy/v1 PodDisruptionBudget": &m.disruption, "apps/v1 StatefulSet": &m.workers,
		"batch/v1 Job": &m.setup, "networking.k8s.io/v1 NetworkPolicy": &m.network, "autoscaling/v2 HorizontalPodAutoscaler": &m.autoscaler,
		"rbac.authorization.k8s.io/v1 Role": &m.role, "rbac.authorization.k8s.io/v1 RoleBinding": &m.binding, "keda.sh/v1alpha1 ScaledObject": &m.scaled,
		"monitoring.coreos.com/v1 ServiceMonitor": &m.monitor,
	}
	for _, r := range built.Resources() {
		kind := r.GetApiVersion() + " " + r.GetKind()
		require.Contains(t, into, kind, "%s: twice, or a type that nobody has decoded here", overlay)
		doc, err := r.AsYAML()
		require.NoError(t, err)
		require.NoError(t, yaml.UnmarshalStrict(doc, into[kind]), "%s: %s", overlay, kind)
		delete(into, kind)
		m.kinds = append(m.kinds, r.GetKind())
		require.Equal(t, "exactly", r.GetLabels()["app.kubernetes.io/name"], "%s: %s", overlay, kind)
		require.NotEmpty(t, r.GetNamespace(), "%s: %s", overlay, kind)
	}
	return m
}

// every overlay is built and looked at.
func every(t *testing.T, f func(*testing.T, *manifests)) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, kubernetesDir, "overlays", "*"))
	require.NoError(t, err)
	require.Len(t, found, len(overlays))
	for name := range overlays {
		t.Run(name, func(t *testing.T) { f(t, kustomized(t, name)) })
	}
}

func TestKubernetesOverlays(t *testing.T) {
	every(t, func(t *testing.T, m *manifests) {
		want := append([]string{"ConfigMap", "Service", "ServiceAccount", "PodDisruptionBudget", "StatefulSet", "Job", "NetworkPolicy"}, overlays[m.overlay]...)
		require.ElementsMatch(t, want, m.kinds)
		require.False(t, *m.account.AutomountServiceAccountToken)
	})
}

// env is what a container's process sees, and the settings file it is told to read. What Kubernetes fills in is shown as it would be.
func (m *manifests) env(t *testing.T, c corev1.Container, secret string) (env map[string]string, file string) {
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
			require.Equal(t, secret, from.SecretKeyRef.Name+"/"+from.SecretKeyRef.Key)
			if m.overlay != "development" {
				require.Contains(t, string(read(t, filepath.Join(kubernetesDir, "overlays", m.overlay, "kustomization.yaml"))), "secret generic "+from.SecretKeyRef.Name+" ", "the overlay's head says how to make it")
			}
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

// checkPod is what holds for every pod: the restricted profile of Pod Security, and that it may do nothing but run the program.
func (m *manifests) checkPod(t *testing.T, p corev1.PodSpec) corev1.Container {
	t.Helper()
	require.Len(t, p.Containers, 1)
	require.Empty(t, p.InitContainers)
	c := p.Containers[0]
	checkCommand(t, c.Name, c.Args)
	require.Empty(t, c.Command, "the image's entry point is right")
	require.Equal(t, m.account.Name, p.ServiceAccountName)
	require.False(t, *p.EnableServiceLinks, "a Service named exactly makes variables that look like settings")
	require.False(t, p.HostNetwork || p.HostPID || p.HostIPC)
	require.True(t, *p.SecurityContext.RunAsNonRoot)
	user, _, _ := strings.Cut(built(t).user, ":")
	require.EqualValues(t, number(t, user), *p.SecurityContext.RunAsUser, "the image's user")
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, p.SecurityContext.SeccompProfile.Type)
	require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
	require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	require.Nil(t, c.SecurityContext.Privileged)
	require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
	require.Empty(t, c.SecurityContext.Capabilities.Add)
	for _, port := range c.Ports {
		require.Zero(t, port.HostPort)
	}
	require.Regexp(t, `:\d+\.\d+\.\d+(-dev)?$`, c.Image)
	require.NotZero(t, c.Resources.Limits.Memory().Value())
	require.Len(t, p.Volumes, 1, "nothing of the host")
	require.Equal(t, c.VolumeMounts[0].Name, p.Volumes[0].Name)
	require.Equal(t, m.config.Name, p.Volumes[0].ConfigMap.Name)
	require.Regexp(t, `^exactly-settings-[a-z0-9]{10}$`, m.config.Name, "changed settings roll the workers")
	return c
}

func TestKubernetesWorkers(t *testing.T) {
	every(t, func(t *testing.T, m *manifests) {
		pod := m.workers.Spec.Template
		c := m.checkPod(t, pod.Spec)
		require.Equal(t, "run", c.Args[0])
		env, file := m.env(t, c, "exactly-postgres/dsn")
		require.NotContains(t, env, "EXACTLY_KAFKA_BROKERS", "the environment would win over the file")
		cfg := settingsOK(t, "worker", file, env)
		require.Equal(t, "exactly-0", cfg.Worker.ID, "the pod's name: the same after a restart")

		grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
		require.Greater(t, grace, cfg.StopTimeout+5*time.Second, "killed while it stops")
		require.Equal(t, ":8000", cfg.HTTP.Addr)
		require.EqualValues(t, 8000, c.Ports[0].ContainerPort)
		require.Equal(t, "/healthz", c.LivenessProbe.HTTPGet.Path, "/readyz would restart a worker for a held partition")
		require.Equal(t, "/healthz", c.StartupProbe.HTTPGet.Path)
		require.Equal(t, "/readyz", c.ReadinessProbe.HTTPGet.Path)
		for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			require.Equal(t, c.Ports[0].Name, p.HTTPGet.Port.StrVal)
		}

		require.Equal(t, m.service.Name, m.workers.Spec.ServiceName)
		require.Equal(t, corev1.ClusterIPNone, m.service.Spec.ClusterIP)
		require.Equal(t, c.Ports[0].Name, m.service.Spec.Ports[0].TargetPort.StrVal)
		selectors := map[string]map[string]string{
			"statefulset": m.workers.Spec.Selector.MatchLabels, "service": m.service.Spec.Selector, "budget": m.disruption.Spec.Selector.MatchLabels,
		}
		var keys []string
		for _, s := range pod.Spec.TopologySpreadConstraints {
			selectors["spread over "+s.TopologyKey] = s.LabelSelector.MatchLabels
			keys = append(keys, s.TopologyKey)
		}
		require.Equal(t, []string{"topology.kubernetes.io/zone", "kubernetes.io/hostname"}, keys)
		for what, s := range selectors {
			require.True(t, selects(s, pod.Labels), "%s selects other pods", what)
			require.False(t, selects(s, m.setup.Spec.Template.Labels), "%s counts the setup among the workers", what)
		}
		require.Equal(t, 1, m.disruption.Spec.MaxUnavailable.IntValue())
	})
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}

func TestKubernetesSetup(t *testing.T) {
	every(t, func(t *testing.T, m *manifests) {
		c := m.checkPod(t, m.setup.Spec.Template.Spec)
		require.Equal(t, "setup", c.Args[0])
		require.False(t, *m.setup.Spec.Template.Spec.AutomountServiceAccountToken)
		require.Equal(t, m.workers.Spec.Template.Spec.Containers[0].Image, c.Image, "the program that migrates is the one that runs")
		env, file := m.env(t, c, "exactly-postgres-setup/dsn")
		settingsOK(t, "setup", file, env)
	})
}

// What the settings connect to may be connected to, and nothing else; what listens may be reached by who scrapes.
func TestKubernetesNetwork(t *testing.T) {
	every(t, func(t *testing.T, m *manifests) {
		require.ElementsMatch(t, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}, m.network.Spec.PolicyTypes)
		for what, labels := range map[string]map[string]string{"workers": m.workers.Spec.Template.Labels, "setup": m.setup.Spec.Template.Labels} {
			require.True(t, selects(m.network.Spec.PodSelector.MatchLabels, labels), what)
		}
		require.Len(t, m.network.Spec.Ingress, 1)
		require.NotEmpty(t, m.network.Spec.Ingress[0].From, "anybody")
		require.Equal(t, m.workers.Spec.Template.Spec.Containers[0].Ports[0].Name, m.network.Spec.Ingress[0].Ports[0].Port.StrVal)
		var open []string
		for _, e := range m.network.Spec.Egress {
			require.NotEmpty(t, e.Ports, "everything")
			for _, p := range e.Ports {
				open = append(open, p.Port.String())
			}
		}
		env, file := m.env(t, m.workers.Spec.Template.Spec.Containers[0], "exactly-postgres/dsn")
		cfg := settingsOK(t, "worker", file, env)
		for _, address := range []string{cfg.Kafka.Brokers, hostOf(t, cfg.Registry.URL), "postgres:5432", "dns:53"} {
			require.Contains(t, open, address[strings.LastIndexByte(address, ':')+1:], address)
		}
		require.Equal(t, cfg.Kubernetes.StatefulSet != "", slices.Contains(open, "443"), "Kubernetes' API")
	})
}
