package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/replay"
	"github.com/exactly-pipeline/exactly/schema"
	"github.com/exactly-pipeline/exactly/txn"
)

// lettersPage is the view Dead letters.
type lettersPage struct {
	Since   string
	Sinces  []string
	Groups  []group
	Class   string
	Stage   string
	State   string
	Letters []replay.Shown
	More    bool
	MayDo   bool
	WhyNot  string
	Replay  *jobView
	One     *letterView
	Plan    *plan
	Topic   string
}

// group is letters of one class and stage.
type group struct {
	Class, Stage             string
	All, Open, Asked, Handed int64
	First, Last              time.Time
	Bars                     []int64
	Query                    string
}

const (
	bars        = 48
	mostLetters = 100
	mostChosen  = 500
)

var sinces = map[string]time.Duration{"1h": time.Hour, "24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour, "30d": 30 * 24 * time.Hour}

func (s *Console) mayReplay(r *http.Request) (bool, string) {
	switch {
	case s.opt.Worker:
		return false, "a worker's own console only looks: exactly console"
	case !s.cfg.Console.Write:
		return false, "this console only looks: console.write"
	case !s.person(r).MayWrite():
		return false, "viewers only look: it takes an operator"
	}
	return true, ""
}

func (s *Console) showLetters(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	p := &lettersPage{Since: q.Get("since"), Sinces: []string{"1h", "24h", "7d", "30d"}, Class: q.Get("class"), Stage: q.Get("stage"), State: q.Get("state"), Topic: s.cfg.Topics.Input}
	if sinces[p.Since] == 0 {
		p.Since = "24h"
	}
	if !slices.Contains([]string{"", "open", "requested", "replayed"}, p.State) {
		return wrong("%q is no state", p.State)
	}
	p.MayDo, p.WhyNot = s.mayReplay(r)
	ctx, cancel := context.WithTimeout(r.Context(), 8*time.Second)
	defer cancel()
	src, err := s.source(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	since := now.Add(-sinces[p.Since])
	p.Groups, err = s.groups.get(p.Since, 2*time.Second, func() ([]group, error) { return s.groupLetters(ctx, &src, since, now, p.Since) })
	if err != nil {
		return err
	}
	f := replay.Filter{Since: since, Limit: mostLetters + 1, Newest: true}
	if p.Class != "" {
		f.Classes = []string{p.Class}
	}
	if p.Stage != "" {
		f.Stages = []string{p.Stage}
	}
	if p.State != "" {
		f.States = []string{p.State}
	}
	e := eyesOf(s.person(r))
	err = replay.Each(ctx, s.db, &src, &f, func(l *replay.Letter) error {
		h := replay.Head(l)
		h.Message = e.text(h.Message)
		p.Letters = append(p.Letters, h)
		return nil
	})
	if err != nil {
		return err
	}
	if p.More = len(p.Letters) > mostLetters; p.More {
		p.Letters = p.Letters[:mostLetters]
	}
	p.Replay = s.jobs.newest("replay").view()
	return s.show(w, r, "letters", "Dead letters", p)
}

// groupLetters counts by class and stage, and over time.
func (s *Console) groupLetters(ctx context.Context, src *txn.Source, since, now time.Time, name string) ([]group, error) {
	counts, err := replay.Counts(ctx, s.db, src, &replay.Filter{Since: since})
	if err != nil {
		return nil, err
	}
	var out []group
	at := func(class, stage string) *group {
		i := slices.IndexFunc(out, func(g group) bool { return g.Class == class && g.Stage == stage })
		if i < 0 {
			q := url.Values{"since": {name}, "class": {class}, "stage": {stage}}
			out = append(out, group{Class: class, Stage: stage, Bars: make([]int64, bars), Query: "?" + q.Encode()})
			i = len(out) - 1
		}
		return &out[i]
	}
	for _, c := range counts {
		g := at(c.Class, c.Stage)
		g.All += c.Letters
		switch c.State {
		case "open":
			g.Open += c.Letters
		case "requested":
			g.Asked += c.Letters
		default:
			g.Handed += c.Letters
		}
		if g.First.IsZero() || c.First.Before(g.First) {
			g.First = c.First
		}
		if c.Last.After(g.Last) {
			g.Last = c.Last
		}
	}
	rows, err := s.db.Query(ctx, `SELECT error_class, error_stage, width_bucket(extract(epoch FROM created_at), $2, $3, $4) - 1, count(*) FROM dead_letters
		WHERE source_id IN (SELECT source_id FROM sources WHERE source_id = $1 OR group_id = (SELECT group_id || '-replay' FROM sources WHERE source_id = $1))
		AND created_at >= $5 GROUP BY 1, 2, 3`, src.ID, float64(since.UnixMilli())/1000, float64(now.UnixMilli())/1000, bars, since)
	if err != nil {
		return nil, fmt.Errorf("count dead letters over time: %w", err)
	}
	var class, stage string
	var bucket int
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&class, &stage, &bucket, &n}, func() error {
		at(class, stage).Bars[min(max(bucket, 0), bars-1)] += n
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("count dead letters over time: %w", err)
	}
	return out, nil
}

// letterView is one letter.
type letterView struct {
	replay.Shown
	Fields     []shownHeader
	Text       string
	Key, Value string // hexadecimal
	Size       int
	Heads      []shownHeader
	Masked     bool
	Record     string
}

var origins = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,200}/(\d{1,9})/(\d{1,18})$`)

func (s *Console) showLetter(w http.ResponseWriter, r *http.Request) error {
	origin := r.URL.Query().Get("origin")
	m := origins.FindStringSubmatch(origin)
	if m == nil {
		return wrong("%q is no coordinate", origin)
	}
	ctx, cancel := context.WithTimeout(r.Context(), 8*time.Second)
	defer cancel()
	src, err := s.source(ctx)
	if err != nil {
		return err
	}
	reg, err := provision.Registry(s.cfg)
	if err != nil {
		return err
	}
	defer reg.Close()
	n, _ := strconv.ParseInt(m[1], 10, 32)
	at, _ := strconv.ParseInt(m[2], 10, 64)
	attempt, err := strconv.Atoi(r.URL.Query().Get("attempt"))
	if err != nil {
		attempt = -1
	}
	decoder := schema.NewClickDecoder(reg)
	decoder.Patience(time.Second)
	decoder.Format(s.cfg.Value.Format)
	e, p := eyesOf(s.person(r)), &lettersPage{}
	err = replay.Each(ctx, s.db, &src, &replay.Filter{Partitions: []int32{int32(n)}, Offsets: []int64{at}}, func(l *replay.Letter) error {
		if attempt < 0 || l.Attempt == attempt {
			p.One = e.letter(ctx, l, decoder)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if p.One == nil {
		return &problem{http.StatusNotFound, fmt.Errorf("there is no dead letter of %s", origin)}
	}
	p.MayDo, p.WhyNot = s.mayReplay(r)
	return s.show(w, r, "letter", "Dead letters", p)
}

// letter is one letter as these eyes may see it: decoded, or as text, or in hexadecimal.
func (e eyes) letter(ctx context.Context, l *replay.Letter, d *schema.ClickDecoder) *letterView {
	v := &letterView{Shown: replay.Head(l), Key: e.raw(l.Key), Value: e.raw(l.Value), Size: len(l.Value), Heads: e.headers(l.Headers), Masked: !e.addresses}
	v.Message = e.text(v.Message)
	v.Record = fmt.Sprintf("%s/%d/%d", l.Topic, l.OfPartition, l.OfOffset)
	whole := replay.Whole(ctx, l, d)
	if whole.SchemaID != nil {
		v.Fields = append(v.Fields, shownHeader{"schema", fmt.Sprint(*whole.SchemaID)})
	}
	switch c := whole.Value.(type) {
	case map[string]any:
		for _, k := range []string{"user_id", "session_id", "timestamp_ms", "url"} {
			v.Fields = append(v.Fields, shownHeader{strings.ReplaceAll(k, "_", " "), fmt.Sprint(c[k])})
		}
		ip, _ := c["ip"].(string)
		v.Fields = append(v.Fields, shownHeader{"address", e.ip(ip)})
	case string:
		v.Text = e.text(c)
	case nil:
		v.Text = "null"
	case map[string]string: // hexadecimal: Value has it, for those who may see it
	default:
		v.Text = e.text(string(l.Value))
	}
	return v
}
