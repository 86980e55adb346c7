package connect

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// Both reach a registry that wants to know who they are, and take along what Kafka wants to know.
func TestSecured(t *testing.T) {
	fake := srfake.NewRegistry().Handler()
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "someone" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fake.ServeHTTP(w, r)
	}))
	defer registry.Close()
	c, err := config.Load("", []string{
		"EXACTLY_REGISTRY_URL=" + registry.URL, "EXACTLY_REGISTRY_USERNAME=someone", "EXACTLY_REGISTRY_PASSWORD=secret",
		"EXACTLY_KAFKA_SASL_MECHANISM=PLAIN", "EXACTLY_KAFKA_SASL_USERNAME=someone", "EXACTLY_KAFKA_SASL_PASSWORD=secret",
		"EXACTLY_KAFKA_BROKERS=127.0.0.1:1, 127.0.0.1:2",
	}, nil)
	require.NoError(t, err)
	g, err := Generator(t.Context(), &c, func(string) {})
	require.NoError(t, err)
	require.Equal(t, 1, g.SchemaID)
	require.Same(t, &c.Kafka, g.Security)

	a, err := Audit(&c)
	require.NoError(t, err)
	require.Equal(t, []string{"127.0.0.1:1", "127.0.0.1:2"}, a.Brokers)
	require.NotEmpty(t, a.KafkaOpts)
	asks, err := http.NewRequestWithContext(context.Background(), http.MethodGet, registry.URL+"/subjects", nil)
	require.NoError(t, err)
	answer, err := a.RegistryTransport.RoundTrip(asks)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusOK, answer.StatusCode)

	c.Registry.Password = "wrong"
	_, err = Generator(t.Context(), &c, func(string) {})
	require.Error(t, err)
}
