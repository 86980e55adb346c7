package schema

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"golang.org/x/sync/singleflight"
)

const (
	requestTimeout = 5 * time.Second  // of every request to the registry
	unknownFor     = 30 * time.Second // how long "unknown id" is believed: a schema may be registered, or restored, after all
	maxUnknown     = 4096             // ids believed unknown at one time: whoever writes garbage chooses the ids
	maxReferences  = 64               // schemas one schema may refer to, directly or not
)

// WriterSchema is one registered schema. It never changes under its id.
type WriterSchema struct {
	ID         int
	Type       string   // AVRO, PROTOBUF, JSON
	Text       string   // as it was registered
	References []string // texts of the schemas it refers to, each after those that it needs itself
	Names      []string // what each is called where it is referred to
}

// Registry is a client of a schema registry (Confluent API), with a cache. It is safe for concurrent use.
type Registry struct {
	cl     *sr.Client
	http   *http.Client
	now    func() time.Time
	flight singleflight.Group

	mu      sync.Mutex
	known   map[int]*WriterSchema
	unknown map[int]time.Time // until when
}

// NewRegistry prepares a client; it sends nothing yet. A user and password in the URL become basic authentication and are in no error.
// A transport, if one is given, carries the requests, in place of http.DefaultTransport's like.
func NewRegistry(rawURL string, transport ...http.RoundTripper) (*Registry, error) {
	u, err := url.Parse(rawURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, errors.New("schema registry: the URL must be http://host:port or https://host:port")
	}
	h := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone(), Timeout: requestTimeout}
	for _, t := range transport {
		h.Transport = t
	}
	opts := []sr.ClientOpt{sr.HTTPClient(h), sr.UserAgent("exactly")}
	if u.User != nil {
		password, _ := u.User.Password()
		opts = append(opts, sr.BasicAuth(u.User.Username(), password))
		u.User = nil
	}
	cl, err := sr.NewClient(append(opts, sr.URLs(u.String()))...)
	if err != nil {
		return nil, fmt.Errorf("schema registry %s: %w", u, err)
	}
	return &Registry{cl: cl, http: h, now: time.Now, known: map[int]*WriterSchema{}, unknown: map[int]time.Time{}}, nil
}

// Close ends idle connections. The registry can still be used, and closed again.
func (r *Registry) Close() { r.http.CloseIdleConnections() }

// Register makes avsc a version of subject unless it is one, and returns its id and whether it was new. Errors: *InvalidError if
// the registry refuses the schema (it is incompatible with the subject's versions, or no schema), else *TransientError.
func (r *Registry) Register(ctx context.Context, subject, avsc string) (id int, created bool, err error) {
	return r.register(ctx, subject, sr.Schema{Schema: avsc, Type: sr.TypeAvro})
}

// RegisterJSON is Register for a JSON Schema.
func (r *Registry) RegisterJSON(ctx context.Context, subject, text string) (id int, created bool, err error) {
	return r.register(ctx, subject, sr.Schema{Schema: text, Type: sr.TypeJSON})
}

func (r *Registry) register(ctx context.Context, subject string, s sr.Schema) (id int, created bool, err error) {
	lookup, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	// Looking first is what tells whether it was new; it also works on a registry that is read-only for us.
	found, err := r.cl.LookupSchema(lookup, subject, s)
	if err == nil && found.ID == 0 {
		return 0, false, &TransientError{"look up schema of " + subject, errNoID}
	}
	if err == nil {
		return found.ID, false, nil
	}
	if !hasCode(err, sr.ErrSubjectNotFound, sr.ErrSchemaNotFound, sr.ErrSubjectSoftDeleted) {
		return 0, false, &TransientError{"look up schema of " + subject, err}
	}
	register, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	id, err = r.cl.RegisterSchema(register, subject, s, -1, -1)
	if status := statusOf(err); status == http.StatusConflict || status == http.StatusUnprocessableEntity {
		return 0, false, &InvalidError{ClassIncompatible, fmt.Sprintf("register schema of %s: %v", subject, err)}
	}
	if err == nil && id == 0 {
		err = errNoID
	}
	if err != nil {
		return 0, false, &TransientError{"register schema of " + subject, err}
	}
	return id, true, nil
}

// errNoID is 200 and some JSON of a proxy's, or of another service. Believed, all events would be written with schema 0.
var errNoID = errors.New("the answer holds no schema id")

// SchemaByID is the schema with that id. Errors: *InvalidError of ClassUnknown if the registry says that there is none, else
// *TransientError. Answers are kept for ever, "there is none" for half a minute.
func (r *Registry) SchemaByID(ctx context.Context, id int) (*WriterSchema, error) {
	if s, err := r.cached(id); s != nil || err != nil {
		return s, err
	}
	ch := r.flight.DoChan(strconv.Itoa(id), func() (any, error) {
		if s, err := r.cached(id); s != nil || err != nil { // by the flight that ended while this one was being asked for
			return s, err
		}
		// Not the caller's context: others wait for the same answer.
		return r.fetch(context.WithoutCancel(ctx), id)
	})
	select {
	case <-ctx.Done():
		return nil, &TransientError{fmt.Sprintf("fetch schema %d", id), context.Cause(ctx)}
	case res := <-ch:
		if res.Err != nil {
			return nil, res.Err
		}
		return res.Val.(*WriterSchema), nil
	}
}

func (r *Registry) cached(id int) (*WriterSchema, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.known[id]; s != nil {
		return s, nil
	}
	until, ok := r.unknown[id]
	if ok && r.now().Before(until) {
		return nil, errUnknown(id)
	}
	delete(r.unknown, id)
	return nil, nil
}

func (r *Registry) fetch(ctx context.Context, id int) (*WriterSchema, error) {
	req, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	got, err := r.cl.SchemaByID(req, id)
	if hasCode(err, sr.ErrSchemaNotFound) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.unknown) >= maxUnknown {
			clear(r.unknown)
		}
		r.unknown[id] = r.now().Add(unknownFor)
		return nil, errUnknown(id)
	}
	if err != nil {
		return nil, &TransientError{fmt.Sprintf("fetch schema %d", id), err}
	}
	if got.Schema == "" { // 200 and some JSON of a proxy's: believed, it would be an unreadable schema for ever
		return nil, &TransientError{fmt.Sprintf("fetch schema %d", id), errors.New("the answer holds no schema")}
	}
	s := &WriterSchema{ID: id, Type: got.Type.String(), Text: got.Schema}
	if err := r.references(ctx, got.References, map[sr.SchemaReference]bool{}, s); err != nil {
		return nil, &TransientError{fmt.Sprintf("fetch what schema %d refers to", id), err}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[id] = s
	delete(r.unknown, id)
	return s, nil
}

// references appends what refs refer to to w, depth first.
func (r *Registry) references(ctx context.Context, refs []sr.SchemaReference, seen map[sr.SchemaReference]bool, w *WriterSchema) error {
	for _, ref := range refs {
		if seen[ref] {
			continue
		}
		seen[ref] = true
		if len(seen) > maxReferences {
			return fmt.Errorf("more than %d references", maxReferences) // fits no registry's limits: not a schema to give up a click for
		}
		req, cancel := context.WithTimeout(ctx, requestTimeout)
		got, err := r.cl.SchemaByVersion(req, ref.Subject, ref.Version)
		cancel()
		if err != nil {
			return fmt.Errorf("%s version %d: %w", ref.Subject, ref.Version, err)
		}
		if err := r.references(ctx, got.References, seen, w); err != nil {
			return err
		}
		w.References, w.Names = append(w.References, got.Schema.Schema), append(w.Names, ref.Name)
	}
	return nil
}

func errUnknown(id int) error {
	return &InvalidError{ClassUnknown, fmt.Sprintf("the schema registry does not know id %d", id)}
}

// hasCode asks for the registry's own error code. HTTP's 404 alone is not enough: a wrong base URL or a proxy answers 404 to
// everything, and every click would be a dead letter.
func hasCode(err error, codes ...*sr.Error) bool {
	var re *sr.ResponseError
	if !errors.As(err, &re) {
		return false
	}
	for _, c := range codes {
		if re.ErrorCode == c.Code {
			return true
		}
	}
	return false
}

func statusOf(err error) int {
	var re *sr.ResponseError
	if !errors.As(err, &re) {
		return 0
	}
	return re.StatusCode
}
