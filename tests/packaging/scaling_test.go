package packaging

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/replicas"
)

// Of KEDA's and the Prometheus operator's types only what is used here: their modules bring a controller along. Names are those of keda.sh/v1alpha1
// (apis/keda/v1alpha1/scaledobject_types.go, KEDA 2.18) and monitoring.coreos.com/v1 (servicemonitor_types.go, operator 0.86); what is not among them
// fails the strict decoding, and is to be looked up there before it is added here.
type scaledObject struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Spec            struct {
		ScaleTargetRef struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Name       string `json:"name"`
		} `json:"scaleTargetRef"`
		PollingInterval *int32 `json:"pollingInterval"`
		MinReplicaCount *int32 `json:"minReplicaCount"`
		MaxReplicaCount *int32 `json:"maxReplicaCount"`
		Fallback        *struct {
			FailureThreshold int32 `json:"failureThreshold"`
			Replicas         int32 `json:"replicas"`
		} `json:"fallback"`
		Advanced *struct {
			RestoreToOriginalReplicaCount bool `json:"restoreToOriginalReplicaCount"`
			HorizontalPodAutoscalerConfig *struct {
				Behavior *autoscalingv2.HorizontalPodAutoscalerBehavior `json:"behavior"`
			} `json:"horizontalPodAutoscalerConfig"`
		} `json:"advanced"`
		Triggers []struct {
			Type       string                         `json:"type"`
			MetricType autoscalingv2.MetricTargetType `json:"metricType"`
			Metadata   map[string]string              `json:"metadata"`
		} `json:"triggers"`
	} `json:"spec"`
}

type serviceMonitor struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Spec            struct {
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port          string `json:"port"`
			Path          string `json:"path"`
			Interval      string `json:"interval"`
			ScrapeTimeout string `json:"scrapeTimeout"`
			Relabelings   []struct {
				Action      string `json:"action"`
				TargetLabel string `json:"targetLabel"`
				Replacement string `json:"replacement"`
			} `json:"relabelings"`
		} `json:"endpoints"`
	} `json:"spec"`
}

// Who scales the workers leaves their number alone otherwise, never asks for none, nor for more than there are partitions, and goes down slowly.
func checkScaling(t *testing.T, m *manifests, least, most int32, b *autoscalingv2.HorizontalPodAutoscalerBehavior) {
	t.Helper()
	require.Nil(t, m.workers.Spec.Replicas, "each apply would set back what the autoscaler chose")
	require.GreaterOrEqual(t, least, int32(1), "only a worker knows the lag")
	require.EqualValues(t, config.Defaults().Topics.Partitions, most)
	require.NotNil(t, b)
	require.GreaterOrEqual(t, *b.ScaleDown.StabilizationWindowSeconds, int32(300))
	require.EqualValues(t, 1, b.ScaleDown.Policies[0].Value)
}

func TestKEDA(t *testing.T) {
	m := kustomized(t, "production")
	s := m.scaled.Spec
	require.Equal(t, []string{"apps/v1", "StatefulSet", m.workers.Name}, []string{s.ScaleTargetRef.APIVersion, s.ScaleTargetRef.Kind, s.ScaleTargetRef.Name})
	checkScaling(t, m, *s.MinReplicaCount, *s.MaxReplicaCount, s.Advanced.HorizontalPodAutoscalerConfig.Behavior)
	require.Positive(t, s.Fallback.Replicas)
	require.Len(t, s.Triggers, 1)
	tr := s.Triggers[0]
	require.Equal(t, "prometheus", tr.Type, "Kafka's own counts the markers of transactions")
	require.Equal(t, autoscalingv2.AverageValueMetricType, tr.MetricType)
	require.Equal(t, "false", tr.Metadata["ignoreNullValues"], "no answer would be no lag")
	for k := range tr.Metadata {
		require.Contains(t, []string{"serverAddress", "query", "threshold", "ignoreNullValues"}, k, "the trigger's metadata")
	}
	number(t, tr.Metadata["threshold"])
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(tr.Metadata["query"])
	require.NoError(t, err)
	var metrics []string
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			metrics = append(metrics, v.Name)
		}
		return nil
	})
	require.Equal(t, []string{"exactly_lag_records"}, metrics)
	require.Contains(t, string(read(t, "internal/telemetry/positions.go")), `"exactly_lag_records"`)
	require.Contains(t, tr.Metadata["query"], `job="`+m.monitor.Spec.Endpoints[0].Relabelings[0].Replacement+`"`)
}

func TestHPA(t *testing.T) {
	m := kustomized(t, "production-hpa")
	s := m.autoscaler.Spec
	require.Equal(t, autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: m.workers.Name}, s.ScaleTargetRef)
	checkScaling(t, m, *s.MinReplicas, s.MaxReplicas, s.Behavior)
	require.Len(t, s.Metrics, 1)
	require.Equal(t, corev1.ResourceCPU, s.Metrics[0].Resource.Name)
	require.NotZero(t, m.workers.Spec.Template.Spec.Containers[0].Resources.Requests.Cpu().MilliValue(), "a share of nothing")
}

// Prometheus finds the workers' port, under the job that the alerts go by.
func TestServiceMonitor(t *testing.T) {
	m := kustomized(t, "production")
	require.True(t, selects(m.monitor.Spec.Selector.MatchLabels, m.service.Labels))
	require.Len(t, m.monitor.Spec.Endpoints, 1)
	e := m.monitor.Spec.Endpoints[0]
	require.Equal(t, m.service.Spec.Ports[0].Name, e.Port)
	require.Equal(t, "/metrics", e.Path)
	require.Equal(t, []string{"replace", "job"}, []string{e.Relabelings[0].Action, e.Relabelings[0].TargetLabel})
	asked := 0
	for _, r := range alerts(t) {
		if strings.Contains(r.Expr, `job="`) {
			require.Contains(t, r.Expr, `job="`+e.Relabelings[0].Replacement+`"`, r.Alert)
			asked++
		}
	}
	require.Positive(t, asked)
}

// A pod that keeps its place may ask about the one StatefulSet it is of, and nothing else; without that it has no token at all.
func TestKeepPlace(t *testing.T) {
	every(t, func(t *testing.T, m *manifests) {
		pod := m.workers.Spec.Template.Spec
		env, file := m.env(t, pod.Containers[0], "exactly-postgres/dsn")
		cfg := settingsOK(t, "worker", file, env)
		asks := m.role.Name != ""
		require.Equal(t, asks, *pod.AutomountServiceAccountToken)
		require.Equal(t, asks, cfg.Kubernetes.StatefulSet != "")
		if !asks {
			return
		}
		require.Equal(t, m.workers.Name, cfg.Kubernetes.StatefulSet)
		require.Equal(t, replicas.Mount, cfg.Kubernetes.AccountDir)
		require.Len(t, m.role.Rules, 1)
		r := m.role.Rules[0]
		require.Equal(t, [][]string{{"apps"}, {"statefulsets"}, {m.workers.Name}, {"get"}}, [][]string{r.APIGroups, r.Resources, r.ResourceNames, r.Verbs})
		require.Equal(t, m.role.Name, m.binding.RoleRef.Name)
		require.Equal(t, []string{"ServiceAccount", m.account.Name, m.account.Namespace}, []string{m.binding.Subjects[0].Kind, m.binding.Subjects[0].Name, m.binding.Subjects[0].Namespace})
		require.Greater(t, cfg.Kafka.SessionTimeout, time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second, "its place is lost before it is back")
	})
}
