package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/connect"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
	"github.com/exactly-pipeline/exactly/internal/tracing"
	"github.com/exactly-pipeline/exactly/schema"
)

// generateFlags are the flags of generate.
type generateFlags struct {
	rate, badShare, traceShare float64
	count                      int64
	seed                       uint64
	live                       bool
	from, baseURL              string
	follow, dryRun             bool
}

// shownLines is how many unreadable lines are shown: enough to see what is wrong, not a copy of the log.
const shownLines = 5

func newGenerate(g *globals) *cobra.Command {
	var f generateFlags
	cmd := &cobra.Command{
		Use: "generate", Short: "Produce clicks: random ones, or those of a web server's access log or of NDJSON",
		Long: `generate produces clicks to the input topic with an idempotent producer, and ends with 0 only when every one is acknowledged.
Ctrl-C or SIGTERM ends it: what was sent is waited for, and only a --count that was not reached makes that an exit of 1.
A broker or registry that is away is waited for.

With --from it reads a web server's access log (Common or Combined Log Format; an X-Forwarded-For after the user agent is understood)
or NDJSON (objects with timestamp, url, ip and, if there, user_id, session_id). What a line lacks is derived from what it has, always the same:
user_id from address and user agent, session_id from those and half an hour of silence, url from --base-url and the request.`,
		Example: `  exactly generate                                   100 random clicks a second until Ctrl-C
  exactly generate --rate 0 --count 1000000          a million, as fast as it goes
  exactly generate --count 5000 --seed 42            the same 5,000 clicks each time
  exactly generate --count 10000 --bad-share 0.001   about ten of them invalid
  exactly generate --from /var/log/nginx/access.log --follow --base-url https://www.example.org
  zcat access.log.*.gz | exactly generate --from -`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runGenerate(cmd, g, f) },
	}
	fs := cmd.Flags()
	fs.Float64Var(&f.rate, "rate", 100, "clicks a second; 0: as fast as it goes (the default with --from)")
	fs.Float64Var(&f.traceShare, "trace-share", 0, "share of the clicks that have a trace of their own, from 0 to 1 (telemetry.otlp_endpoint, or OpenTelemetry's own variables)")
	fs.Int64Var(&f.count, "count", 0, "clicks in all; 0: without end")
	fs.Uint64Var(&f.seed, "seed", 0, "the same seed makes the same clicks, timestamps included (default: another one each time, timestamps of now)")
	fs.BoolVar(&f.live, "live", false, "with --seed: timestamps of now nevertheless")
	fs.Float64Var(&f.badShare, "bad-share", 0, "fraction of clicks made invalid on purpose, 0 to 1")
	fs.StringVar(&f.from, "from", "", "read clicks from `FILE`, - for standard input")
	fs.BoolVar(&f.follow, "follow", false, "with --from: wait for more at the end, through rotation and truncation")
	fs.BoolVar(&f.dryRun, "dry-run", false, "send nothing: print the clicks, as NDJSON that --from reads; ten, or --count")
	fs.StringVar(&f.baseURL, "base-url", "http://localhost", "with --from an access log: what stands before the requests' paths")
	return cmd
}

// check finds values and combinations that make no sense.
func (f *generateFlags) check(given func(string) bool) error {
	switch {
	case !(f.rate >= 0 && f.rate <= 1e9): // not NaN either
		return fmt.Errorf("--rate %v: must be from 0 (as fast as it goes) to 1000000000", f.rate)
	case f.count < 0:
		return fmt.Errorf("--count %d: must be 0 (without end) or more", f.count)
	case !(f.badShare >= 0 && f.badShare <= 1):
		return fmt.Errorf("--bad-share %v: must be from 0 to 1", f.badShare)
	case !(f.traceShare >= 0 && f.traceShare <= 1):
		return fmt.Errorf("--trace-share %v: must be from 0 to 1", f.traceShare)
	case f.live && !given("seed"):
		return errors.New("--live goes with --seed: without it timestamps are those of now anyway")
	case given("from") && f.from == "":
		return errors.New("--from: must name a file, or - for standard input")
	}
	for _, n := range []string{"seed", "live", "bad-share"} {
		if f.from != "" && given(n) {
			return fmt.Errorf("--%s is for random clicks and cannot go with --from", n)
		}
	}
	for _, n := range []string{"follow", "base-url"} {
		if f.from == "" && given(n) {
			return fmt.Errorf("--%s goes with --from", n)
		}
	}
	return nil
}

func runGenerate(cmd *cobra.Command, g *globals, f generateFlags) error {
	if err := f.check(cmd.Flags().Changed); err != nil {
		return usageError(err)
	}
	c, err := g.load()
	if err != nil {
		return err
	}
	if c.Value.Format != schema.Avro {
		return usageError(fmt.Errorf("generate: it makes Avro clicks only, and value.format is %s", c.Value.Format))
	}
	stderr := cmd.ErrOrStderr()
	say := func(text string) { fmt.Fprintln(stderr, "generate:", text) }
	source, closeSource, err := generateSource(cmd, &f, say)
	if err != nil {
		return usageError(err)
	}
	defer closeSource()
	ctx := cmd.Context()
	if f.dryRun {
		return g.drawn(cmd, source, f.count)
	}
	generate, err := connect.Generator(ctx, &c, say)
	if err != nil && ctx.Err() == nil {
		return err
	}
	traces, err := f.traces(ctx, &c, say, &generate, err)
	if err != nil && ctx.Err() == nil {
		return err
	}
	defer traces.Close()
	var done clicks.Generated
	if ctx.Err() == nil {
		generate.Source, generate.Rate, generate.Count = source, f.rate, f.count
		generate.Progress = func(p clicks.Generated) {
			left := ""
			if p.PerSecond > 0 && f.count > p.Acknowledged {
				left = fmt.Sprintf(", about %v left", (time.Duration(float64(f.count-p.Acknowledged)/p.PerSecond) * time.Second).Round(time.Second))
			}
			say(fmt.Sprintf("%.0f clicks/s, %d acknowledged, %d waiting%s", p.PerSecond, p.Acknowledged, p.Clicks-p.Acknowledged-p.Failed, left))
		}
		done, err = clicks.Generate(ctx, generate)
	} else { // ended before anything was sent
		done.Stopped, err = true, nil
	}
	if err == nil && done.Stopped && f.count > 0 { // exit 0 means all of them
		err = fmt.Errorf("stopped after %d of %d clicks", done.Clicks, f.count)
	}
	if perr := printGenerated(cmd.OutOrStdout(), g.json, done); err == nil {
		err = perr
	}
	return err
}

// traces begins those of the clicks that are to have one. before is what went wrong until here: then there are none.
func (f *generateFlags) traces(ctx context.Context, c *config.Config, say func(string), g *clicks.GenerateConfig, before error) (*tracing.Tracing, error) {
	if f.traceShare == 0 || before != nil {
		return nil, before
	}
	log, err := telemetry.NewLogger(c.Log)
	if err != nil {
		return nil, err
	}
	t, err := tracing.Start(ctx, tracing.Config{Endpoint: c.Telemetry.OTLPEndpoint, Build: version, Worker: "generate", Group: c.Group, Topic: c.Topics.Input}, log)
	if err != nil {
		return nil, err
	}
	if t == nil {
		say("--trace-share: nobody takes traces: set telemetry.otlp_endpoint (EXACTLY_TELEMETRY_OTLP_ENDPOINT)")
		return nil, nil //nolint:nilnil // a nil Tracing traces nothing
	}
	g.TraceEach = max(int64(math.Round(1/f.traceShare)), 1)
	g.Trace = func() (string, func(error)) { return t.Click(c.Topics.Input) }
	return t, nil
}

// generateSource is where the clicks come from. A random source's seed is said, so that a run can be repeated.
func generateSource(cmd *cobra.Command, f *generateFlags, say func(string)) (clicks.Source, func(), error) {
	given := cmd.Flags().Changed
	if f.from == "" {
		if !given("seed") {
			f.seed, f.live = rand.Uint64(), true
			say("seed " + strconv.FormatUint(f.seed, 10))
		}
		return clicks.Made{Generator: clicks.NewGenerator(clicks.GeneratorConfig{Seed: f.seed, BadShare: f.badShare, Live: f.live})}, func() {}, nil
	}
	if !given("rate") {
		f.rate = 0
	}
	shown := 0
	lines, err := clicks.OpenLines(clicks.FromConfig{
		Path: f.from, Stdin: cmd.InOrStdin(), BaseURL: f.baseURL, Follow: f.follow,
		Unreadable: func(number int64, reason error, text string) {
			if shown++; shown <= shownLines {
				say(fmt.Sprintf("line %d: %v: %q", number, reason, text))
			} else if shown == shownLines+1 {
				say("more unreadable lines: counted, not shown")
			}
		},
	})
	if err != nil {
		return nil, nil, err
	}
	return lines, func() { _ = lines.Close() }, nil // read only: nothing to lose
}

func printGenerated(w io.Writer, asJSON bool, d clicks.Generated) error {
	if asJSON {
		return printJSON(w, struct {
			clicks.Generated
			ElapsedMs int64 `json:"elapsed_ms"`
		}{d, d.Elapsed.Milliseconds()})
	}
	_, err := fmt.Fprintf(w, "generated %d clicks: %d acknowledged, %d unreadable lines; %d invalid on purpose, %.0f/s over %v\n",
		d.Clicks, d.Acknowledged, d.Unreadable, d.Invalid, d.PerSecond, d.Elapsed.Round(time.Millisecond))
	return err
}
