// Package console owns the console's views: what is asked of the stores for each, who may ask, and what a person may have done through it.
//
// It promises that nothing changes unless the settings and the person's role allow it, that each deed is in the ledger under the person's name,
// and that what it shows is what the stores said, with its age. It never decides anything for a worker, nor reads without a bound.
package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/console/chain"
	"github.com/exactly-pipeline/exactly/internal/console/guard"
	"github.com/exactly-pipeline/exactly/internal/console/now"
	"github.com/exactly-pipeline/exactly/internal/console/pages"
	"github.com/exactly-pipeline/exactly/internal/offsets"
	"github.com/exactly-pipeline/exactly/ledger"
)

// Prefix is what every path begins with.
const Prefix = "/console"

// Options say which console it is.
type Options struct {
	Build  string
	Worker bool // of the worker of this process alone: read-only, and only what concerns one worker
	Addr   string
	Log    *zap.Logger
}

// Console is the views. Close it.
type Console struct {
	cfg   *config.Config
	opt   Options
	pages *pages.Pages
	guard *guard.Guard
	mux   *http.ServeMux
	now   *now.Watcher
	db    *pgxpool.Pool
	jobs  jobs
	stop  context.CancelFunc

	looks  lately[*chain.Overview]
	heads  lately[map[int32]ledger.Head]
	groups lately[[]group]

	mu     sync.Mutex
	desk   *offsets.Desk // nil until a store has answered
	reader *audit.Reader // likewise
	report *audit.Report // of the newest audit; nil: none
}

// New makes a console; the stores are asked when somebody looks.
func New(c *config.Config, o Options) (*Console, error) {
	ps, err := pages.New()
	if err != nil {
		return nil, err
	}
	s := &Console{cfg: c, opt: o, pages: ps, mux: http.NewServeMux(), jobs: jobs{kinds: map[string]*job{}}}
	s.jobs.ctx, s.stop = context.WithCancel(context.Background())
	if f := c.Console.TokensFile; f != "" {
		if err := guard.CheckTokens(f); err != nil {
			return nil, fmt.Errorf("console.tokens_file: %w", err)
		}
	}
	if s.db, err = open(c); err != nil {
		return nil, err
	}
	local := guard.Person{Name: ledger.Whoami(), Role: guard.Viewer, Via: "this machine"}
	if c.Console.Write && !o.Worker {
		local.Role = guard.Operator
	}
	s.guard = guard.New(guard.Config{
		Prefix: Prefix, Hosts: guard.Hosts(o.Addr, config.List(c.Console.Hosts)), TokensFile: c.Console.TokensFile, Local: local, Login: s.login,
		ClientCert: c.Console.TLS.ClientCA != "" && !o.Worker, Operators: config.List(c.Console.TLS.Operators), Secure: c.Console.TLS.Cert != "" && !o.Worker,
	})
	only := ""
	if o.Worker {
		only = c.Worker.ID
	}
	s.now = now.New(s.look, only)
	s.routes()
	return s, nil
}

// open is a few sessions of the console's own, which can't keep what workers need: they read, and not for long.
func open(c *config.Config) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(c.Postgres.DSN)
	if err != nil {
		return nil, fmt.Errorf("read postgres.dsn: %w", err)
	}
	p := pc.ConnConfig.RuntimeParams
	p["application_name"] = "exactly/" + c.Group + "/console"
	p["timezone"], p["default_transaction_read_only"] = "UTC", "on"
	p["statement_timeout"], p["idle_in_transaction_session_timeout"] = "5000", "5000"
	pc.MaxConns, pc.MaxConnIdleTime, pc.ConnConfig.ConnectTimeout = 4, time.Minute, 3*time.Second
	db, err := pgxpool.NewWithConfig(context.Background(), pc)
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	return db, nil
}

// Close ends the connections.
func (s *Console) Close() {
	s.stop()
	s.db.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.desk != nil {
		s.desk.Close()
		s.desk = nil
	}
	if s.reader != nil {
		s.reader.Close()
	}
}

// look asks where every partition is, by the desk that `exactly offsets show` is of.
func (s *Console) look(ctx context.Context) (*offsets.Report, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.desk == nil {
		d, err := offsets.Open(ctx, s.cfg, s.opt.Log)
		if err != nil {
			return nil, err
		}
		s.desk = d
	}
	return s.desk.Show(ctx)
}

func (s *Console) routes() {
	page := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, h(w, r)) })
	}
	s.mux.Handle("GET "+Prefix+"/assets/", pages.Assets(Prefix+"/assets"))
	page("POST "+Prefix+"/theme", s.theme)
	page("GET "+Prefix+"/{$}", s.showNow)
	page("GET "+Prefix+"/now/live", s.showNow)
	page("GET "+Prefix+"/ledger", s.showLedger)
	page("GET "+Prefix+"/ledger/{partition}", s.showChain)
	if s.opt.Worker {
		return
	}
	page("GET "+Prefix+"/record", s.showRecord)
	page("GET "+Prefix+"/ledger/verify", s.showVerify)
	page("POST "+Prefix+"/ledger/verify", s.verify)
	page("GET "+Prefix+"/letters", s.showLetters)
	page("GET "+Prefix+"/letters/one", s.showLetter)
	page("POST "+Prefix+"/letters/plan", s.dryRun)
	page("POST "+Prefix+"/letters/replay", s.doReplay)
	page("GET "+Prefix+"/letters/watch", s.showReplay)
	page("GET "+Prefix+"/audit", s.showAudit)
	page("POST "+Prefix+"/audit", s.runAudit)
	page("GET "+Prefix+"/audit/report", s.download)
}

// ServeHTTP implements http.Handler.
func (s *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.guard.Wrap(s.mux).ServeHTTP(w, r)
}

// views in the bar.
func (s *Console) views() []pages.Link {
	all := []pages.Link{{Name: "Now", Path: "/"}, {Name: "Ledger", Path: "/ledger"}}
	if s.opt.Worker { // its database user may read no more
		return all
	}
	return slices.Insert(append(all, pages.Link{Name: "Dead letters", Path: "/letters"}, pages.Link{Name: "Audit", Path: "/audit"}), 1, pages.Link{Name: "Record", Path: "/record"})
}

func (s *Console) person(r *http.Request) guard.Person { return guard.From(r.Context()) }

func (s *Console) frame(r *http.Request, title string, page any) pages.Frame {
	f := pages.Frame{
		Title: title, Prefix: Prefix, Person: guard.From(r.Context()), CSRF: guard.CSRF(r.Context()), Page: page, OtherTheme: "dark",
		Where: s.cfg.Topics.Input + ", group " + s.cfg.Group,
	}
	if s.opt.Worker {
		f.Where = "worker " + s.cfg.Worker.ID
	}
	if c, err := r.Cookie("exactly_theme"); err == nil && (c.Value == "dark" || c.Value == "light") {
		if f.Theme = c.Value; f.Theme == "dark" {
			f.OtherTheme = "light"
		}
	}
	if f.Person.Name == "" {
		f.Where = "" // who is not known is not told which deployment it is
		return f
	}
	for _, l := range s.views() {
		l.Here = l.Name == title
		f.Nav = append(f.Nav, l)
	}
	return f
}

// show writes a page, or its live part to the page's own script.
func (s *Console) show(w http.ResponseWriter, r *http.Request, name, title string, page any) error {
	f := s.frame(r, title, page)
	if r.Header.Get("X-Live") != "" {
		return s.pages.Part(w, name, f)
	}
	return s.pages.Write(w, 0, name, f)
}

// problem is an error of whoever asks: it is shown with its code.
type problem struct {
	code int
	err  error
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

func wrong(format string, a ...any) error {
	return &problem{http.StatusBadRequest, fmt.Errorf(format, a...)}
}

func forbidden(format string, a ...any) error {
	return &problem{http.StatusForbidden, fmt.Errorf(format, a...)}
}

// answer writes what went wrong, if anything did.
func (s *Console) answer(w http.ResponseWriter, r *http.Request, err error) {
	if err == nil {
		return
	}
	code := http.StatusBadGateway // a store's
	var p *problem
	if errors.As(err, &p) {
		code = p.code
	} else if r.Context().Err() == nil {
		s.opt.Log.Warn("the console could not show it", zap.String("path", r.URL.Path), zap.Error(err))
	}
	if r.Header.Get("X-Live") != "" {
		http.Error(w, err.Error(), code)
		return
	}
	if perr := s.pages.Write(w, code, "problem", s.frame(r, "That did not work", err.Error())); perr != nil {
		http.Error(w, err.Error(), code)
	}
}

func (s *Console) login(w http.ResponseWriter, r *http.Request, code int, wrong bool) {
	if err := s.pages.Write(w, code, "login", s.frame(r, "Sign in", wrong)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s *Console) theme(w http.ResponseWriter, r *http.Request) error {
	t := r.PostFormValue("theme")
	if t != "dark" && t != "light" {
		return wrong("the theme must be dark or light")
	}
	http.SetCookie(w, &http.Cookie{
		Name: "exactly_theme", Value: t, Path: Prefix, MaxAge: 365 * 24 * 3600, HttpOnly: true, Secure: s.guard.Secure, SameSite: http.SameSiteStrictMode,
	})
	back := r.Referer()
	if back == "" {
		back = Prefix + "/"
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
	return nil
}

func (s *Console) showNow(w http.ResponseWriter, r *http.Request) error {
	return s.show(w, r, "now", "Now", s.now.Get(r.Context()))
}
