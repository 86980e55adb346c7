package console

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/connect"
	"github.com/exactly-pipeline/exactly/internal/console/find"
	"github.com/exactly-pipeline/exactly/txn"
)

// recordPage is the view Record.
type recordPage struct {
	Asked  string
	Topic  string
	Record *audit.Record
	Forms  []form
	Trace  string
	Found  *find.Found
	Kind   string // user, trace
	More   string // query of the search that goes on
	Masked bool
}

// form is one form of the record: as it came, as a row, …
type form struct {
	Name, Where string
	Is          string // equal, different, unknown; empty: it stands alone
	Missing     string // why it is not there
	Good        bool   // … and that is as it should be
	Fields      []shownHeader
	Headers     []shownHeader
	Key, Value  string // in hexadecimal
	Size        int
}

var (
	coordinate = regexp.MustCompile(`^(?:([a-zA-Z0-9._-]+)/)?(\d{1,9})[/@](\d{1,18})$`)
	userID     = regexp.MustCompile(`^\d{1,18}$`)
	traceID    = regexp.MustCompile(`^[0-9a-f]{32}$`)
	traceLine  = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$`)
)

func (s *Console) showRecord(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), 8*time.Second)
	defer cancel()
	e := eyesOf(s.person(r))
	p := &recordPage{Asked: strings.TrimSpace(r.URL.Query().Get("q")), Topic: s.cfg.Topics.Input, Masked: !e.addresses}
	if p.Asked == "" {
		return s.show(w, r, "record", "Record", p)
	}
	src, err := s.source(ctx)
	if err != nil {
		return err
	}
	before := r.URL.Query().Get("before")
	q := strings.ToLower(p.Asked)
	if m := traceLine.FindStringSubmatch(q); m != nil {
		q = m[1]
	}
	switch m := coordinate.FindStringSubmatch(p.Asked); {
	case m != nil && m[1] != "" && m[1] != s.cfg.Topics.Input:
		return wrong("%s is not the input topic, which is %s", m[1], s.cfg.Topics.Input)
	case m != nil:
		n, err := strconv.ParseInt(m[2], 10, 32)
		if err != nil {
			return wrong("%s is no partition", m[2])
		}
		at, err := strconv.ParseInt(m[3], 10, 64)
		if err != nil {
			return wrong("%s is no offset", m[3])
		}
		err = s.readRecord(ctx, &src, int32(n), at, e, p)
		if err != nil {
			return err
		}
	case userID.MatchString(q):
		p.Kind = "user"
		user, _ := strconv.ParseInt(q, 10, 64)
		at, _ := strconv.ParseInt(before, 10, 64)
		if p.Found, err = find.User(ctx, s.db, src.ID, user, at); err != nil {
			return err
		}
		p.More = more(p, strconv.FormatInt(p.Found.From, 10))
	case traceID.MatchString(q):
		p.Kind = "trace"
		at, _ := time.Parse(time.RFC3339Nano, before)
		if p.Found, err = find.Trace(ctx, s.db, src.ID, q, at); err != nil {
			return err
		}
		p.More = more(p, p.Found.Since.UTC().Format(time.RFC3339Nano))
	default:
		return wrong("%q is none of: %s/PARTITION/OFFSET, a user id, a trace id of 32 hexadecimal digits", p.Asked, s.cfg.Topics.Input)
	}
	return s.show(w, r, "record", "Record", p)
}

func more(p *recordPage, before string) string {
	if !p.Found.More {
		return ""
	}
	return "?" + url.Values{"q": {p.Asked}, "before": {before}}.Encode()
}

func (s *Console) source(ctx context.Context) (txn.Source, error) {
	return txn.FindSource(ctx, s.db, s.cfg.Topics.Input, s.cfg.Group)
}

func (s *Console) readRecord(ctx context.Context, src *txn.Source, n int32, at int64, e eyes, p *recordPage) error {
	s.mu.Lock()
	if s.reader == nil {
		o, err := connect.Audit(s.cfg)
		if err == nil {
			s.reader, err = audit.NewReader(o)
		}
		if err != nil {
			s.mu.Unlock()
			return err
		}
	}
	reader := s.reader
	s.mu.Unlock()
	rec, err := reader.Read(ctx, s.db, src.ID, n, at)
	if err != nil {
		return err
	}
	p.Trace = rec.Trace()
	e.record(rec)
	p.Record, p.Forms = rec, e.forms(rec)
	return nil
}
