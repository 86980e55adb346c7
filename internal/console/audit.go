package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/connect"
)

var errBusy = errors.New("one is under way already: wait for it to end")

// auditPage is the view Audit.
type auditPage struct {
	Job     *jobView
	Report  *audit.Report // of the newest that ended; nil: none yet
	At      time.Time
	Clean   bool
	Counts  []classCount
	Topic   string
	Command string
}

type classCount struct {
	Class string
	N     int64
}

func (s *Console) auditPage() *auditPage {
	p := &auditPage{Job: s.jobs.newest("audit").view(), Topic: s.cfg.Topics.Input}
	s.mu.Lock()
	p.Report = s.report
	s.mu.Unlock()
	if p.Report != nil {
		p.Clean = p.Report.Clean()
		for _, c := range audit.Classes {
			if n := p.Report.Found[c]; n > 0 {
				p.Counts = append(p.Counts, classCount{string(c), n})
			}
		}
	}
	return p
}

func (s *Console) showAudit(w http.ResponseWriter, r *http.Request) error {
	return s.show(w, r, "audit", "Audit", s.auditPage())
}

// runAudit begins an audit. It reads, as any number of others may; but it is work, so there is one at a time.
func (s *Console) runAudit(w http.ResponseWriter, r *http.Request) error {
	o, err := connect.Audit(s.cfg)
	if err != nil {
		return err
	}
	o.Program, o.Settled = s.opt.Build, r.PostForm.Get("settled") != ""
	if since := r.PostForm.Get("since"); since != "" {
		d, ok := sinces[since]
		if !ok {
			return wrong("%q is none of 1h, 24h, 7d, 30d", since)
		}
		o.Since = time.Now().Add(-d)
	}
	if n := strings.TrimSpace(r.PostForm.Get("partition")); n != "" {
		v, err := strconv.ParseInt(n, 10, 32)
		if err != nil || v < 0 {
			return wrong("%q is no partition", n)
		}
		p := int32(v)
		o.Partition = &p
	}
	_, begun := s.jobs.start("audit", s.person(r), 24*time.Hour, func(ctx context.Context, j *job) (any, error) {
		o.Watch = func(p audit.Progress) { j.tell(p.Stage, p.Share, p.Left) }
		rep, err := audit.Run(ctx, o)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.report = rep
		s.mu.Unlock()
		return nil, nil
	})
	if !begun {
		return &problem{http.StatusConflict, errBusy}
	}
	http.Redirect(w, r, Prefix+"/audit", http.StatusSeeOther)
	return nil
}

// download is the newest report as a file.
func (s *Console) download(w http.ResponseWriter, r *http.Request) error {
	s.mu.Lock()
	rep := s.report
	s.mu.Unlock()
	if rep == nil {
		return &problem{http.StatusNotFound, errors.New("there is no report yet")}
	}
	name := fmt.Sprintf("audit-%s-%s", s.cfg.Group, rep.At.Format("20060102T150405Z"))
	file := func(kind, ext string) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s.%s"`, name, ext))
	}
	if r.URL.Query().Get("as") == "json" {
		file("application/json", "json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(rep)
	}
	file("text/html; charset=utf-8", "html")
	return rep.WriteHTML(w)
}
