package console

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/internal/replay"
)

// plan is a replay that somebody looks at before it is done.
type plan struct {
	Origins []string
	Would   int // letters it would be
	Not     int // chosen, and no longer open
}

// replaying is a replay under way, or done.
type replaying struct {
	Origins int
	Reason  string
	Report  *replay.Report
	States  map[string]int64 // of the letters chosen, now
}

// chosen are the letters that a form names.
func chosen(r *http.Request) ([]string, error) {
	os := r.PostForm["origin"]
	switch {
	case len(os) == 0:
		return nil, wrong("no letter was chosen")
	case len(os) > mostChosen:
		return nil, wrong("%d letters were chosen: at most %d at a time, or exactly dlq replay", len(os), mostChosen)
	}
	for _, o := range os {
		if !origins.MatchString(o) {
			return nil, wrong("%q is no coordinate", o)
		}
	}
	return os, nil
}

// dryRun says what a replay would do. It changes nothing.
func (s *Console) dryRun(w http.ResponseWriter, r *http.Request) error {
	os, err := chosen(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	defer cancel()
	rep, err := replay.Replay(ctx, s.cfg, replay.Options{Filter: replay.Filter{Origins: os}, DryRun: true, Log: s.opt.Log})
	if err != nil {
		return err
	}
	p := &lettersPage{Plan: &plan{os, rep.Selected, len(os) - rep.Selected}}
	p.MayDo, p.WhyNot = s.mayReplay(r)
	return s.show(w, r, "plan", "Dead letters", p)
}

// replayAfter is how long a replay is watched.
const replayAfter = 5 * time.Minute

// doReplay hands letters in again, under the person's name.
func (s *Console) doReplay(w http.ResponseWriter, r *http.Request) error {
	if may, why := s.mayReplay(r); !may {
		return forbidden("%s", why)
	}
	os, err := chosen(r)
	if err != nil {
		return err
	}
	reason := strings.TrimSpace(r.PostForm.Get("reason"))
	if reason == "" || len(reason) > 500 {
		return wrong("it must say why, in up to 500 characters: that is kept in the ledger")
	}
	by := s.person(r)
	_, begun := s.jobs.start("replay", by, replayAfter+time.Minute, func(ctx context.Context, j *job) (any, error) {
		j.mu.Lock()
		j.what = &replaying{Origins: len(os), Reason: reason}
		j.mu.Unlock()
		go s.watchReplay(ctx, j, os, reason)
		rep, err := replay.Replay(ctx, s.cfg, replay.Options{
			Filter: replay.Filter{Origins: os}, Wait: replayAfter, By: by.Name + " (console)", Reason: reason, Build: s.opt.Build, Log: s.opt.Log,
		})
		states, _ := s.states(context.WithoutCancel(ctx), os)
		return &replaying{len(os), reason, rep, states}, err
	})
	if !begun {
		return &problem{http.StatusConflict, errBusy}
	}
	http.Redirect(w, r, Prefix+"/letters/watch", http.StatusSeeOther)
	return nil
}

// watchReplay notes where the letters stand until the replay is over.
func (s *Console) watchReplay(ctx context.Context, j *job, os []string, reason string) {
	for !j.over() {
		if st, err := s.states(ctx, os); err == nil {
			j.mu.Lock()
			if j.ended.IsZero() {
				j.what = &replaying{Origins: len(os), Reason: reason, States: st}
			}
			j.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// states counts the letters chosen by where they stand.
func (s *Console) states(ctx context.Context, os []string) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	src, err := s.source(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := s.db.Query(ctx, `SELECT state, count(*) FROM exactly_dead_letters WHERE of_source_id = $1 AND $2::text || '/' || of_partition || '/' || of_offset = ANY($3) GROUP BY 1`,
		src.ID, src.Topic, os)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	var state string
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&state, &n}, func() error { out[state] = n; return nil })
	return out, err
}

func (s *Console) showReplay(w http.ResponseWriter, r *http.Request) error {
	return s.show(w, r, "watch", "Dead letters", s.jobs.newest("replay").view())
}
