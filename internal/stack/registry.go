package stack

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr/srfake"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/stack/child"
)

// maxRegistryBody bounds a request; schemas are kilobytes.
const maxRegistryBody = 4 << 20

// registry is srfake made durable: what changed it is kept, in order, and asked of it again at the next start, which gives the
// same versions and ids because srfake counts both.
type registry struct {
	path   string
	fake   http.Handler
	server *http.Server
	served chan struct{}

	mu      sync.Mutex // one change at a time: their order is what makes the ids come out the same
	changes []change
	seen    map[[32]byte]bool // registrations that changed nothing the second time: every worker registers at its start
}

// change is a request that succeeded and was not a read.
type change struct {
	Method string `json:"method"`
	URI    string `json:"uri"`
	Body   string `json:"body,omitempty"`
	ID     int    `json:"id,omitempty"` // the schema id it was answered with
}

func startRegistry(o Options, st *state) (*registry, error) {
	r := &registry{path: filepath.Join(o.Dir, "registry.json"), fake: srfake.NewRegistry().Handler(), served: make(chan struct{}), seen: map[[32]byte]bool{}}
	if err := r.load(); err != nil {
		return nil, err
	}
	port, err := child.FreePort(st.RegistryPort)
	if err != nil {
		return nil, err
	}
	l, err := child.Listen("tcp", child.Loopback(port))
	if err != nil {
		return nil, err
	}
	st.RegistryPort = port
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, ErrorLog: zap.NewStdLog(o.Log.Named("registry"))}
	go func() {
		defer close(r.served)
		if err := r.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("the schema registry stopped", zap.Error(err))
		}
	}()
	return r, nil
}

func (r *registry) stop() error {
	err := r.server.Close()
	<-r.served
	return err
}

func (r *registry) load() error {
	data, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &r.changes); err != nil {
		return fmt.Errorf("read %s: %w", r.path, err)
	}
	for i, c := range r.changes {
		res := r.ask(c.Method, c.URI, []byte(c.Body))
		if id := schemaID(res); res.Code/100 != 2 || id != c.ID {
			return fmt.Errorf("%s: %s %s (change %d) was answered %d with schema id %d, now with id %d: schemas would change their ids", r.path, c.Method, c.URI, i, res.Code, c.ID, id)
		}
		r.remember(c)
	}
	return nil
}

// ServeHTTP answers a change only once it is on disk.
func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	changes := req.Method != http.MethodGet && req.Method != http.MethodHead &&
		// Posted, but questions: is this schema compatible, is it registered.
		!strings.Contains(req.URL.Path, "/compatibility/") && (req.Method != http.MethodPost || strings.HasSuffix(req.URL.Path, "/versions"))
	if !changes {
		r.fake.ServeHTTP(w, req)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxRegistryBody))
	if err != nil {
		http.Error(w, "read the request: "+err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	res := r.ask(req.Method, req.URL.RequestURI(), body)
	if res.Code/100 == 2 {
		if err := r.keep(change{req.Method, req.URL.RequestURI(), string(body), schemaID(res)}); err != nil {
			http.Error(w, "keep the change: "+err.Error(), http.StatusInternalServerError)
			return
		}
	}
	for k, v := range res.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(res.Code)
	_, _ = w.Write(res.Body.Bytes())
}

func (r *registry) ask(method, uri string, body []byte) *httptest.ResponseRecorder {
	res := httptest.NewRecorder()
	req, err := http.NewRequest(method, uri, bytes.NewReader(body))
	if err != nil {
		res.WriteHeader(http.StatusBadRequest)
		return res
	}
	r.fake.ServeHTTP(res, req)
	return res
}

func (r *registry) keep(c change) error {
	if c.Method == http.MethodPost && r.seen[c.hash()] {
		return nil
	}
	data, err := json.MarshalIndent(append(r.changes, c), "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(r.path, data, 0o644); err != nil {
		return err
	}
	r.changes = append(r.changes, c)
	r.remember(c)
	return nil
}

func (r *registry) remember(c change) {
	if c.Method != http.MethodPost {
		clear(r.seen) // after a deletion the same registration changes something again
		return
	}
	r.seen[c.hash()] = true
}

func (c change) hash() [32]byte { return sha256.Sum256([]byte(c.URI + "\n" + c.Body)) }

func schemaID(res *httptest.ResponseRecorder) int {
	var body struct {
		ID int `json:"id"`
	}
	_ = json.Unmarshal(res.Body.Bytes(), &body) // no id is a change without one
	return body.ID
}
