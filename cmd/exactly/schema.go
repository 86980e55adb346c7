package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/schema"
)

func newSchema(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "schema", Short: "Register the program's schemas, check them against the registry, show what is there",
		Long: `The program brings its schemas along: of the clicks it reads and of the events it writes. They belong to the subjects of the input's and the
output's values, at the compatibility level FULL_TRANSITIVE: every version reads what every other has written, so that producers, workers and readers
can be updated in any order, and back.`,
		Example: "  exactly schema check\n  exactly schema register\n  exactly schema show",
	}
	cmd.AddCommand(newSchemaRegister(g), newSchemaCheck(g), newSchemaShow(g))
	return cmd
}

func newSchemaRegister(g *globals) *cobra.Command {
	var keep, dryRun bool
	cmd := &cobra.Command{
		Use: "register", Short: "Register the program's schemas, and set their subjects' compatibility level",
		Long:    `Registers what is not registered yet and says what it changed; safe to repeat. Like setup, which leaves the level of subjects that are there alone.`,
		Example: "  exactly schema register\n  exactly schema register --keep-level",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			if dryRun {
				would, err := provision.PlanSchemas(cmd.Context(), &c, !keep)
				return g.planned(cmd, would, err)
			}
			did, err := provision.Schemas(cmd.Context(), &c, !keep)
			if g.json {
				if e := printJSON(cmd.OutOrStdout(), map[string]any{"changed": append([]string{}, did...)}); err == nil {
					err = e
				}
				return err
			}
			for _, line := range did {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			if err == nil && len(did) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing to change")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be changed")
	cmd.Flags().BoolVar(&keep, "keep-level", false, "leave the compatibility level of subjects that are there as it is")
	return cmd
}

// subjectReport is one subject as it is printed.
type subjectReport struct {
	Subject  string          `json:"subject"`
	Level    string          `json:"level"` // empty: the registry does not say
	Ours     bool            `json:"ours"`  // our schema is one of its versions
	Versions []versionReport `json:"versions"`
	Findings []string        `json:"findings"`
}

type versionReport struct {
	Version int    `json:"version"`
	ID      int    `json:"id"`
	Reads   string `json:"unreadable,omitempty"` // why we can't read it
	Read    string `json:"unusable,omitempty"`   // why it can't read us
}

// examine looks at both subjects.
func examine(ctx context.Context, g *globals) ([]subjectReport, int, error) {
	c, err := g.load()
	if err != nil {
		return nil, 0, err
	}
	reg, err := provision.Registry(&c)
	if err != nil {
		return nil, 0, err
	}
	defer reg.Close()
	var out []subjectReport
	findings := 0
	for _, s := range provision.Subjects(&c) {
		is, err := provision.Examine(ctx, reg, s)
		if err != nil {
			return nil, 0, err
		}
		r := subjectReport{Subject: s.Name, Level: is.Level, Ours: is.Ours, Versions: []versionReport{}, Findings: is.Findings()}
		for _, v := range is.Versions {
			r.Versions = append(r.Versions, versionReport{v.Version, v.ID, v.Unreadable, v.Unusable})
		}
		out = append(out, r)
		findings += len(r.Findings)
	}
	return out, findings, nil
}

func newSchemaCheck(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Check the program's schemas against every version in the registry; exit 3 if one does not fit",
		Long: `Changes nothing. For each version under our subjects: can we read what is written with it, and can its readers read what we write (FULL_TRANSITIVE)?
Would the registry take ours, and is its level such that it refuses what would not fit? That nothing is registered yet is no finding.`,
		Example: "  exactly schema check\n  exactly schema check --json | jq '.subjects[].findings'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			subjects, findings, err := examine(cmd.Context(), g)
			if err != nil {
				return err
			}
			if g.json {
				err = printJSON(cmd.OutOrStdout(), map[string]any{"subjects": subjects})
			} else {
				for _, s := range subjects {
					for _, f := range s.Findings {
						fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", s.Subject, f)
					}
					if len(s.Findings) == 0 {
						fmt.Fprintf(cmd.OutOrStdout(), "%s: fits all of its versions (%d)\n", s.Subject, len(s.Versions))
					}
				}
			}
			if err == nil && findings > 0 {
				err = &exitError{code: 3, err: fmt.Errorf("schema check: findings: %d", findings)}
			}
			return err
		},
	}
}

func newSchemaShow(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "show [ID]", Short: "List the versions of our subjects, or print the schema with an id",
		Long: `Without an id: what is registered under our subjects, and which is the program's own. With one, as records carry it: the schema's text, and whether
clicks written with it can be read.`,
		Example: "  exactly schema show\n  exactly schema show 7",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				id, err := strconv.Atoi(args[0])
				if err != nil || id < 0 {
					return usageError(fmt.Errorf("schema show: %q is no schema id", args[0]))
				}
				return showSchema(cmd, g, id)
			}
			subjects, _, err := examine(cmd.Context(), g)
			if err != nil {
				return err
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"subjects": subjects})
			}
			return printSubjects(cmd.OutOrStdout(), subjects)
		},
	}
}

func printSubjects(out io.Writer, subjects []subjectReport) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "subject\tlevel\tversion\tid\tfits")
	for _, s := range subjects {
		if len(s.Versions) == 0 {
			fmt.Fprintf(w, "%s\t%s\t-\t-\tnothing is registered\n", s.Subject, textOrDash(s.Level))
		}
		for _, v := range s.Versions {
			fits := "yes"
			switch {
			case v.Reads != "":
				fits = "can't be read: " + v.Reads
			case v.Read != "":
				fits = "can't read ours: " + v.Read
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", s.Subject, textOrDash(s.Level), v.Version, v.ID, fits)
		}
	}
	return w.Flush()
}

func showSchema(cmd *cobra.Command, g *globals, id int) error {
	c, err := g.load()
	if err != nil {
		return err
	}
	reg, err := provision.Registry(&c)
	if err != nil {
		return err
	}
	defer reg.Close()
	s, err := reg.SchemaByID(cmd.Context(), id)
	if err != nil {
		return err
	}
	unreadable := schema.Unreadable(s, c.Value.Format)
	if g.json {
		return printJSON(cmd.OutOrStdout(), map[string]any{"id": s.ID, "type": s.Type, "schema": s.Text, "references": append([]string{}, s.References...), "unreadable": unreadable})
	}
	fmt.Fprintln(cmd.OutOrStdout(), s.Text)
	if unreadable != "" {
		unreadable = "clicks written with it can't be read: " + unreadable
	} else {
		unreadable = "clicks written with it can be read"
	}
	_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s, %d references; %s\n", s.Type, len(s.References), unreadable)
	return err
}
