package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/doctor"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
)

func newDoctor(g *globals) *cobra.Command {
	var o doctor.Options
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check a deployment before it is trusted: Kafka, topics, registry, Postgres, rights, clocks",
		Long: `Holds what is there against a table of rules (doc/operations.md lists them), and says of each that is broken what was found, why it matters and
what to do. It only reads. Run it with the settings of a worker, on a worker's host: what it checks is what they will meet.

--dev accepts what is fine in development and nowhere else: one broker, one replica, the built-in geo database, a superuser.
Exit codes: 0 nothing found, 3 something found, 1 a store could not be reached.`,
		Example: "  exactly doctor\n  exactly doctor --dev\n  exactly doctor --json | jq -r '.findings[] | [.severity, .rule, .found] | @tsv'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			if o.Log, err = telemetry.NewLogger(c.Log); err != nil {
				return usageError(err)
			}
			o.Environ = os.Environ()
			r, err := doctor.Run(cmd.Context(), &c, o)
			if err != nil {
				return err
			}
			if g.json {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				err = printDoctor(cmd.OutOrStdout(), r)
			}
			if err == nil {
				err = r.Err()
			}
			if err == nil && !r.Clean() {
				return found()
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&o.Dev, "dev", false, "accept what is fine in development and nowhere else")
	return cmd
}

// printDoctor writes the report for people: what was seen, what was found, what could not be checked; the count last.
func printDoctor(out io.Writer, r *doctor.Report) error {
	for _, k := range slices.Sorted(maps.Keys(r.Seen)) {
		fmt.Fprintf(out, "%-11s %s\n", strings.ReplaceAll(k, "_", " "), r.Seen[k])
	}
	fmt.Fprintln(out)
	for i, f := range r.Findings {
		if i == 0 || r.Findings[i-1].Rule != f.Rule || r.Findings[i-1].Severity != f.Severity {
			fmt.Fprintf(out, "%s: %s\n  why    %s\n", f.Severity, f.Rule, f.Why)
		}
		if f.Subject != "" {
			f.Found = f.Subject + ": " + f.Found
		}
		fmt.Fprintf(out, "  found  %s\n  run    %s\n", f.Found, f.Run)
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(out)
	}
	for _, f := range r.Accepted {
		if f.Subject != "" {
			f.Found = f.Subject + ": " + f.Found
		}
		fmt.Fprintf(out, "accepted: %s: %s\n", f.Rule, f.Found)
	}
	for _, u := range r.Unchecked {
		fmt.Fprintf(out, "not checked: %s: %s\n", u.Rule, u.Why)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note:", n)
	}
	_, err := fmt.Fprintf(out, "\n%d rules: %d findings, %d accepted, %d not checked or only in part\n", r.Rules, len(r.Findings), len(r.Accepted), len(r.Unchecked))
	return err
}
