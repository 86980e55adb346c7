package conformance

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/schema"
)

var troubleRules = []rule{
	{"trouble-is-transient", "a registry that fails, or something in front of it that does, never makes a dead letter: the click waits", troubleIsTransient, wire},
	{"slow-is-transient", "a registry that does not answer holds a worker up for as long as it said it would wait, and no longer", slowIsTransient, wire},
	{"trouble-passes", "what was an error is asked for again; what was an answer is not: records are read on while the registry is away", troublePasses, wire},
}

// faulty is a reverse proxy in front of the registry.
type faulty struct {
	url    string
	fault  atomic.Pointer[http.HandlerFunc] // instead of the registry; nil: the registry itself
	passed atomic.Int64                     // requests the registry has seen
}

func (w *world) faulty() *faulty {
	w.t.Helper()
	u, err := url.Parse(shared.registry)
	require.NoError(w.t, err)
	f := &faulty{}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: u.Scheme, Host: u.Host}) }}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if h := f.fault.Load(); h != nil {
			(*h)(rw, r)
			return
		}
		f.passed.Add(1)
		proxy.ServeHTTP(rw, r)
	}))
	w.t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	f.url = s.URL + u.Path
	return f
}

func (f *faulty) says(status int, body string) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	f.fault.Store(&h)
}

func troubleIsTransient(w *world) {
	id, _ := w.register(w.subject("s"), w.avsc(fieldA))
	f := w.faulty()
	for _, c := range []struct {
		point, body string
		status      int
	}{
		{"500", `{"error_code":50001,"message":"store"}`, 500}, {"502 of a proxy", "<html>bad gateway</html>", 502}, {"503", "", 503}, {"429", "slow down", 429},
		{"401", `{"error_code":40101,"message":"who are you"}`, 401}, {"404 that is not the registry's", "<html>not here</html>", 404},
		{"200 and something else", `{"hello":"world"}`, 200}, {"200 and no JSON", "<html>log in</html>", 200},
	} {
		f.says(c.status, c.body)
		_, err := w.registry(f.url).SchemaByID(w.soon(), id)
		w.is("by id: "+c.point, "transient", schemaClass(err))
		_, _, err = w.registry(f.url).Register(w.soon(), w.subject("s"), w.avsc(fieldA))
		w.is("register: "+c.point, "transient", schemaClass(err))
	}
	cut := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(rw, `{"schema":"`)
	})
	f.fault.Store(&cut)
	_, err := w.registry(f.url).SchemaByID(w.soon(), id)
	w.is("by id: cut off in the middle", "transient", schemaClass(err))
	away := w.registry("http://127.0.0.1:1")
	_, err = away.SchemaByID(w.soon(), id)
	w.is("by id: nobody there", "transient", schemaClass(err))
}

func slowIsTransient(w *world) {
	id, _ := w.register(w.subject("s"), w.avsc(fieldA))
	f := w.faulty()
	slow := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	f.fault.Store(&slow)
	r := w.registry(f.url)
	at := time.Now()
	ctx, cancel := context.WithTimeout(w.ctx, 300*time.Millisecond)
	defer cancel()
	_, err := r.SchemaByID(ctx, id)
	w.is("the caller's deadline", "transient", schemaClass(err))
	w.is("kept", true, time.Since(at) < 4*time.Second)
	_, err = r.SchemaByID(w.soon(), id)
	w.is("its own", "transient", schemaClass(err))
	w.is("kept, too", true, time.Since(at) < patience/2)
	f.fault.Store(nil)
	s, err := r.SchemaByID(w.soon(), id)
	w.is("when it answers", "ok", schemaClass(err))
	w.is("the schema", w.avsc(fieldA), schemaText(s))
}

func schemaText(s *schema.WriterSchema) string {
	if s == nil {
		return "none"
	}
	return s.Text
}

func troublePasses(w *world) {
	id, _ := w.register(w.subject("s"), w.avsc(fieldA))
	f := w.faulty()
	r := w.registry(f.url)
	f.says(500, "")
	_, err := r.SchemaByID(w.soon(), id)
	w.is("while it fails", "transient", schemaClass(err))
	f.fault.Store(nil)
	_, err = r.SchemaByID(w.soon(), id)
	w.is("when it has recovered", "ok", schemaClass(err))
	n := f.passed.Load()
	f.says(500, "")
	s, err := r.SchemaByID(w.soon(), id)
	w.is("known, while it fails again", "ok", schemaClass(err))
	w.is("the schema", w.avsc(fieldA), schemaText(s))
	w.is("requests for it", n, f.passed.Load())
}
