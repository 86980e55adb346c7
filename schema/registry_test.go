package schema

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// requests counts those whose path ends in suffix.
func requests(fake *srfake.Registry, suffix string) *atomic.Int64 {
	var n atomic.Int64
	fake.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, suffix) {
			n.Add(1)
		}
		return false
	})
	return &n
}

func TestRegisterIsIdempotent(t *testing.T) {
	fake := srfake.New()
	t.Cleanup(fake.Close)
	reg, err := NewRegistry(fake.URL() + "/")
	require.NoError(t, err)
	t.Cleanup(reg.Close)
	id, created, err := reg.Register(t.Context(), "user_clicks-value", ClickAvsc)
	require.NoError(t, err)
	require.True(t, created)
	again, created, err := reg.Register(t.Context(), "user_clicks-value", ClickAvsc)
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, id, again)
	other, created, err := reg.Register(t.Context(), "user_clicks-value", strings.Replace(ClickAvsc, `"doc": "uuid"`, `"default": ""`, 1))
	require.NoError(t, err)
	require.True(t, created, "a second version")
	require.NotEqual(t, id, other)
}

func TestRegisterErrors(t *testing.T) {
	for _, c := range []struct {
		name         string
		lookup, post int // HTTP status
		body         string
		transient    bool
	}{
		{"lookup unavailable", 503, 0, `{"error_code":50301,"message":"leader unknown"}`, true},
		{"wrong base URL", 404, 0, `<html>not here</html>`, true},
		{"another service answers the lookup", 200, 0, `{"hello":"world"}`, true},
		{"another service answers the registration", 0, 200, `{"hello":"world"}`, true},
		{"incompatible", 0, 409, `{"error_code":409,"message":"incompatible with an earlier schema"}`, false},
		{"not a schema", 0, 422, `{"error_code":42201,"message":"invalid schema"}`, false},
		{"not allowed", 0, 403, `{"error_code":40301,"message":"forbidden"}`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake := srfake.New()
			t.Cleanup(fake.Close)
			fake.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				status := c.lookup
				if strings.HasSuffix(r.URL.Path, "/versions") {
					status = c.post
				}
				if status == 0 {
					return false
				}
				w.WriteHeader(status)
				_, _ = w.Write([]byte(c.body))
				return true
			})
			reg, err := NewRegistry(fake.URL())
			require.NoError(t, err)
			t.Cleanup(reg.Close)
			_, _, err = reg.Register(t.Context(), "user_clicks-value", ClickAvsc)
			require.ErrorContains(t, err, "user_clicks-value")
			requireClass(t, err, map[bool]string{true: "", false: ClassIncompatible}[c.transient])
		})
	}
}

// requireClass: "" means transient.
func requireClass(t *testing.T, err error, class string) {
	t.Helper()
	var transient *TransientError
	var invalid *InvalidError
	if class == "" {
		require.ErrorAs(t, err, &transient)
		require.False(t, errors.As(err, &invalid), "both permanent and transient: %v", err)
		return
	}
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, class, invalid.Class)
	require.False(t, errors.As(err, &transient), "both permanent and transient: %v", err)
}

func TestSchemaByIDIsFetchedOnce(t *testing.T) {
	fake, reg := setup(t)
	n := requests(fake, "/schemas/ids/1")
	arrived := make(chan struct{})
	release := make(chan struct{})
	var once sync.Once
	fake.Intercept(func(http.ResponseWriter, *http.Request) bool {
		once.Do(func() { close(arrived) })
		<-release
		return false
	})
	// One caller gives up while the request is out; the others must not be told of it.
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error)
	go func() { _, err := reg.SchemaByID(ctx, 1); gaveUp <- err }()
	<-arrived
	cancel()
	err := <-gaveUp
	requireClass(t, err, "")
	require.ErrorIs(t, err, context.Canceled)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if s, err := reg.SchemaByID(t.Context(), 1); err != nil || s.Text != ClickAvsc {
				t.Errorf("%v %v", s, err)
			}
		})
	}
	close(release)
	wg.Wait()
	fake.Close() // kept for ever: the registry may go away
	_, err = reg.SchemaByID(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, n.Load())
}

func TestUnknownIDIsBelievedBriefly(t *testing.T) {
	fake, reg := setup(t)
	now := time.Unix(1_800_000_000, 0)
	reg.now = func() time.Time { return now }
	n := requests(fake, "/schemas/ids/8")
	d := NewClickDecoder(reg)
	want := sample().Click
	value := NewClickEncoder(8).Append(nil, &want)
	for range 3 {
		requireClass(t, d.Decode(t.Context(), value, new(Click)), ClassUnknown)
	}
	require.EqualValues(t, 1, n.Load())
	seed(fake, 8, ClickAvsc)
	now = now.Add(unknownFor - time.Millisecond)
	requireClass(t, d.Decode(t.Context(), value, new(Click)), ClassUnknown)
	now = now.Add(time.Millisecond)
	var got Click
	require.NoError(t, d.Decode(t.Context(), value, &got))
	require.Equal(t, want, got)
	require.EqualValues(t, 2, n.Load())
}

func TestUnknownIDsAreBounded(t *testing.T) {
	_, reg := setup(t)
	for id := range maxUnknown {
		reg.unknown[1000+id] = reg.now().Add(time.Hour)
	}
	_, err := reg.SchemaByID(t.Context(), 999)
	requireClass(t, err, ClassUnknown)
	require.Len(t, reg.unknown, 1)
}

func TestSchemaByIDTransient(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
	}{
		{"500", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error_code":50001,"message":"store"}`, 500)
		}},
		{"429", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "slow down", http.StatusTooManyRequests) }},
		{"401", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error_code":40101,"message":"unauthorized"}`, http.StatusUnauthorized)
		}},
		{"404 of a proxy", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no route", 404) }},
		{"404 of a wrong path", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error_code":404,"message":"HTTP 404 Not Found"}`, 404)
		}},
		{"200 without a schema", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) }},
		{"200 of a login page", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`<html>`)) }},
		{"connection cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var healthy atomic.Bool
			fake := srfake.New()
			t.Cleanup(fake.Close)
			seed(fake, 1, ClickAvsc)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if healthy.Load() {
					fake.Handler().ServeHTTP(w, r)
					return
				}
				c.answer(w, r)
			}))
			t.Cleanup(srv.Close)
			reg, err := NewRegistry(strings.Replace(srv.URL, "http://", "http://user:hush-hush@", 1))
			require.NoError(t, err)
			t.Cleanup(reg.Close)
			d := NewClickDecoder(reg)
			want := sample().Click
			value := NewClickEncoder(1).Append(nil, &want)
			err = d.Decode(t.Context(), value, new(Click))
			requireClass(t, err, "")
			require.NotContains(t, err.Error(), "hush-hush")
			healthy.Store(true) // nothing of a failure is remembered
			require.NoError(t, d.Decode(t.Context(), value, new(Click)))
		})
	}
}

func TestSchemaReferences(t *testing.T) {
	fake, reg := setup(t)
	fake.SeedSchema("inner", 1, 50, sr.Schema{Schema: `{"type":"fixed","name":"exactly.Four","size":4}`})
	fake.SeedSchema("outer", 3, 51, sr.Schema{Schema: `{"type":"record","name":"exactly.Extra","fields":[{"name":"four","type":"exactly.Four"}]}`,
		References: []sr.SchemaReference{{Name: "exactly.Four", Subject: "inner", Version: 1}}})
	fake.SeedSchema("clicks", 1, 52, sr.Schema{Schema: strings.Replace(ClickAvsc, `"fields": [`, `"fields": [{"name":"x","type":"Extra"},`, 1),
		References: []sr.SchemaReference{{Name: "exactly.Extra", Subject: "outer", Version: 3}, {Name: "exactly.Four", Subject: "inner", Version: 1}}})
	want := sample().Click
	body := NewClickEncoder(52).Append(nil, &want)
	value := append(append([]byte{}, body[:5]...), append([]byte{1, 2, 3, 4}, body[5:]...)...)
	var got Click
	require.NoError(t, NewClickDecoder(reg).Decode(t.Context(), value, &got))
	require.Equal(t, want, got)
}

func TestNewRegistryRefuses(t *testing.T) {
	for _, u := range []string{"", "localhost:8081", "ftp://x", "http://", "http://a:hush-hush@ b"} {
		_, err := NewRegistry(u)
		require.Error(t, err, u)
		require.NotContains(t, err.Error(), "hush-hush")
	}
}
