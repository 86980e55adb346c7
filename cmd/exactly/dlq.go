package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/replay"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/schema"
	"github.com/exactly-pipeline/exactly/txn"
)

func newDLQ(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "dlq", Short: "Look at dead letters, and hand them in again",
		Long: `Dead letters are in the table dead_letters and in the DLQ topic, in the state they came in, with the reason. A replay hands them in again once what was
wrong is mended: each attempt is captured once, as a row and an event or as a dead letter with its attempt number, whoever is killed when.`,
		Example: "  exactly dlq list --class decode\n  exactly dlq replay --class panic --reason 'fixed in v1.4.2' --dry-run",
	}
	cmd.AddCommand(newDLQList(g), newDLQShow(g), newDLQExport(g), newDLQReplay(g))
	return cmd
}

// letterFlags say which dead letters are meant.
type letterFlags struct {
	replay.Filter
	since, until string
	pointers     bool
}

func (f *letterFlags) flags(cmd *cobra.Command, states bool) {
	cmd.Flags().StringSliceVar(&f.Classes, "class", nil, "error class `C` (repeatable)")
	cmd.Flags().StringSliceVar(&f.Stages, "stage", nil, "error stage `S` (repeatable)")
	cmd.Flags().Int32SliceVar(&f.Partitions, "partition", nil, "source partition `P` (repeatable)")
	cmd.Flags().Int64SliceVar(&f.Offsets, "offset", nil, "source offset `O` (repeatable)")
	cmd.Flags().StringVar(&f.since, "since", "", "captured at `TIME` or later: RFC 3339, or a duration back from now such as 2h")
	cmd.Flags().StringVar(&f.until, "until", "", "captured before `TIME`, likewise")
	cmd.Flags().IntVar(&f.Limit, "limit", 0, "at most `N`; 0: all")
	if states {
		cmd.Flags().StringSliceVar(&f.States, "state", nil, "open, requested or replayed (repeatable); default: all")
		cmd.Flags().BoolVar(&f.pointers, "pointers", false, "of the replay topic: what lies there and leads to no dead letter")
	}
}

// origin is a coordinate as lists have it.
var origin = regexp.MustCompile(`^[^/]+/\d+/\d+$`)

// check takes the arguments: first records' coordinates.
func (f *letterFlags) check(args []string) error {
	for _, a := range args {
		if !origin.MatchString(a) {
			return usageError(fmt.Errorf("%q: must be TOPIC/PARTITION/OFFSET, as exactly dlq list has it", a))
		}
	}
	f.Origins = args
	for _, s := range f.States {
		if s != "open" && s != "requested" && s != "replayed" {
			return usageError(fmt.Errorf("--state %q: must be open, requested or replayed", s))
		}
	}
	if f.Limit < 0 {
		return usageError(fmt.Errorf("--limit %d: must be 0 or more", f.Limit))
	}
	for _, t := range []struct {
		flag, text string
		to         *time.Time
	}{{"since", f.since, &f.Since}, {"until", f.until, &f.Until}} {
		if t.text == "" {
			continue
		}
		if d, err := time.ParseDuration(t.text); err == nil && d >= 0 {
			*t.to = time.Now().Add(-d)
		} else if *t.to, err = time.Parse(time.RFC3339, t.text); err != nil {
			return usageError(fmt.Errorf("--%s %q: must be a time such as 2026-01-31T00:00:00Z, or a duration such as 2h", t.flag, t.text))
		}
	}
	return nil
}

// selects says whether anything says which dead letters are meant.
func (f *letterFlags) selects(cmd *cobra.Command) bool {
	for _, name := range []string{"class", "stage", "partition", "offset", "since", "until", "limit", "state"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return len(f.Origins) > 0
}

// decodePatience is how long a letter's schema is waited for: without it the value is shown as it is.
const decodePatience = 2 * time.Second

// atLetters opens the database for f, with the source whose letters are meant: the input, or the replay topic.
func (g *globals) atLetters(ctx context.Context, pointers bool, f func(*pgx.Conn, *txn.Source, *schema.ClickDecoder) error) error {
	c, err := g.load()
	if err != nil {
		return err
	}
	reg, err := provision.Registry(&c)
	if err != nil {
		return err
	}
	defer reg.Close()
	conn, err := pgx.Connect(ctx, c.Postgres.DSN)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // read only
	of := c
	if pointers {
		of = c.Replay()
	}
	src, err := txn.FindSource(ctx, conn, of.Topics.Input, of.Group)
	if errors.Is(err, txn.ErrNoSource) && pointers {
		err = fmt.Errorf("nothing was ever replayed: %w", err)
	}
	if err != nil {
		return err
	}
	d := schema.NewClickDecoder(reg)
	d.Format(c.Value.Format)
	d.Patience(decodePatience)
	return f(conn, &src, d)
}

func newDLQList(g *globals) *cobra.Command {
	var f letterFlags
	var counts bool
	cmd := &cobra.Command{
		Use: "list [TOPIC/PARTITION/OFFSET]...", Short: "List dead letters, and count them by class, stage and state", Args: cobra.ArbitraryArgs,
		Example: "  exactly dlq list --since 1h\n  exactly dlq list --class invalid --partition 3 --json\n  exactly dlq list --pointers",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(args); err != nil {
				return err
			}
			return g.atLetters(cmd.Context(), f.pointers, func(conn *pgx.Conn, src *txn.Source, _ *schema.ClickDecoder) error {
				n, err := replay.Counts(cmd.Context(), conn, src, &f.Filter)
				if err != nil {
					return err
				}
				letters := []replay.Shown{}
				if !counts {
					err = replay.EachHead(cmd.Context(), conn, src, &f.Filter, func(l *replay.Letter) error {
						letters = append(letters, replay.Head(l))
						return nil
					})
				}
				if err != nil {
					return err
				}
				if g.json {
					return printJSON(cmd.OutOrStdout(), map[string]any{"counts": append([]replay.Count{}, n...), "letters": letters})
				}
				return printLetters(cmd.OutOrStdout(), n, letters)
			})
		},
	}
	f.flags(cmd, true)
	cmd.Flags().BoolVar(&counts, "counts", false, "only the counts")
	return cmd
}

func printLetters(out io.Writer, counts []replay.Count, letters []replay.Shown) error {
	if len(counts) == 0 {
		_, err := fmt.Fprintln(out, "no dead letters")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(letters) > 0 {
		fmt.Fprintln(w, "ORIGIN\tATTEMPT\tSTATE\tCAPTURED\tCLASS\tSTAGE\tMESSAGE")
		for _, l := range letters {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", l.Origin, l.Attempt, l.State, l.CapturedAt.UTC().Format(time.RFC3339), l.Class, l.Stage, l.Message)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "CLASS\tSTAGE\tSTATE\tLETTERS\tFIRST\tLAST")
	for _, c := range counts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", c.Class, c.Stage, c.State, c.Letters, c.First.UTC().Format(time.RFC3339), c.Last.UTC().Format(time.RFC3339))
	}
	return w.Flush()
}

func newDLQShow(g *globals) *cobra.Command {
	return newDLQWhole(g, &cobra.Command{
		Use: "show [TOPIC/PARTITION/OFFSET]...", Short: "Show dead letters whole: decoded as far as that goes, in hexadecimal where it does not",
		Long: `Shows key, value and headers. A value that can be read as a click under its writer's schema is shown as one; else what is text is shown as text, and
anything else in hexadecimal. This is what users sent: it has personal data in it.`,
		Example: "  exactly dlq show user_clicks/3/1042\n  exactly dlq show --partition 3 --offset 1042",
	}, true)
}

func newDLQExport(g *globals) *cobra.Command {
	return newDLQWhole(g, &cobra.Command{
		Use: "export [TOPIC/PARTITION/OFFSET]...", Short: "Write dead letters to standard output, a JSON document a line",
		Long: `Everything there is of each: coordinates, reason, key, value and headers, the bytes in base64 beside what could be decoded. This is what users sent: it
has personal data in it.`,
		Example: "  exactly dlq export --class decode > letters.ndjson",
	}, false)
}

func newDLQWhole(g *globals, cmd *cobra.Command, people bool) *cobra.Command {
	var f letterFlags
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(args); err != nil {
			return err
		}
		if people && !f.selects(cmd) { // each is shown whole, and there may be millions
			return usageError(fmt.Errorf("which ones? TOPIC/PARTITION/OFFSET as in exactly dlq list, or --class, --stage, --state, --since, --until, --limit\n\n%s", cmd.UsageString()))
		}
		return g.atLetters(cmd.Context(), f.pointers, func(conn *pgx.Conn, src *txn.Source, d *schema.ClickDecoder) error {
			n := 0
			enc := json.NewEncoder(cmd.OutOrStdout())
			if people {
				enc.SetIndent("", "  ")
			}
			enc.SetEscapeHTML(false)
			err := replay.Each(cmd.Context(), conn, src, &f.Filter, func(l *replay.Letter) error {
				n++
				return enc.Encode(replay.Whole(cmd.Context(), l, d))
			})
			if err == nil && n == 0 && people {
				return errors.New("there is no such dead letter")
			}
			return err
		})
	}
	f.flags(cmd, true)
	return cmd
}

func newDLQReplay(g *globals) *cobra.Command {
	var f letterFlags
	var o replay.Options
	var all bool
	cmd := &cobra.Command{
		Use: "replay [TOPIC/PARTITION/OFFSET]...", Short: "Hand dead letters in again, each attempt exactly once", Args: cobra.ArbitraryArgs,
		Long: `Writes a pointer for each letter that is open to the topic user_clicks_replay; running workers read the letter, handle it as the record it was, and capture
a row and an event, or a dead letter with the next attempt number. What was asked for is in Postgres and in the ledger before there is a pointer: killed
half way, run it again. Run twice, or two at once, nothing happens twice. The event's exactly-source is the pointer, its exactly-origin the first record.
Needs a member of exactly_setup.`,
		Example: "  exactly dlq replay --class panic --reason 'fixed in v1.4.2' --wait 1m\n  exactly dlq replay --all --reason 'registry mended' --dry-run",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(args); err != nil {
				return err
			}
			switch {
			case all == f.selects(cmd):
				return usageError(errors.New("--all, or which ones: TOPIC/PARTITION/OFFSET, --class, --stage, --partition, --offset, --since, --until, --limit"))
			case !o.DryRun && strings.TrimSpace(o.Reason) == "":
				return usageError(errors.New("--reason: must say why; it is kept"))
			}
			c, err := g.load()
			if err != nil {
				return err
			}
			if o.Log, err = telemetry.NewLogger(c.Log); err != nil {
				return usageError(err)
			}
			defer o.Log.Sync() //nolint:errcheck // a terminal cannot be synced
			o.Filter, o.Build = f.Filter, version
			r, err := replay.Replay(cmd.Context(), &c, o)
			progress.Of(cmd.Context()).Clear()
			if r != nil {
				err = errors.Join(err, g.toldReplay(cmd.OutOrStdout(), r, o.Wait > 0))
			}
			return err
		},
	}
	f.flags(cmd, false)
	cmd.Flags().BoolVar(&all, "all", false, "every letter that is open")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only say how many it would be")
	cmd.Flags().DurationVar(&o.Wait, "wait", 0, "wait this long until all of it is in both sinks")
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why, for the ledger")
	cmd.Flags().StringVar(&o.By, "by", ledger.Whoami(), "who does it, for the ledger")
	return cmd
}

func (g *globals) toldReplay(out io.Writer, r *replay.Report, waited bool) error {
	if g.json {
		return printJSON(out, r)
	}
	says := fmt.Sprintf("%d dead letters selected, %d requested now, %d pointers written", r.Selected, r.Requested, r.Pointers)
	switch {
	case r.DryRun:
		says = fmt.Sprintf("%d dead letters would be replayed", r.Selected)
	case waited:
		says += fmt.Sprintf("; %d captured, %d of them dead letters again", r.Captured, r.Again)
	}
	_, err := fmt.Fprintln(out, says)
	return err
}
