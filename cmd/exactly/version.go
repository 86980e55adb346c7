package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/confluent"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/migrations"
)

// aboutProgram is what a program says of itself.
type aboutProgram struct {
	Version    string `json:"version"`
	Revision   string `json:"revision,omitempty"` // of the source; empty where the build was not told
	Modified   bool   `json:"modified"`           // the source had changes that are in no revision
	Go         string `json:"go"`
	Platform   string `json:"platform"`
	Librdkafka string `json:"librdkafka"`
	Migration  int64  `json:"migration"`  // the database's version that it is made for
	Failpoints bool   `json:"failpoints"` // a test's build, not to be deployed
}

func about() aboutProgram {
	a := aboutProgram{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Librdkafka: confluent.Version(),
		Migration: migrations.Newest(), Failpoints: failpoint.Enabled}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				a.Revision = s.Value
			case "vcs.modified":
				a.Modified = s.Value == "true"
			}
		}
	}
	return a
}

func newVersion(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which program this is, what it was built of, and which database it is made for",
		Long: `Says the version, the source's revision where the build knew it, Go, platform, the Kafka client linked in, and the migration that the database has to be at.
Asks nobody: no settings are read.`,
		Example: "  exactly version\n  exactly version --json | jq -r .migration",
		RunE: func(cmd *cobra.Command, _ []string) error {
			a := about()
			if g.json {
				return printJSON(cmd.OutOrStdout(), a)
			}
			revision := textOrDash(a.Revision)
			if a.Modified {
				revision += ", changed"
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "exactly %s\nrevision   %s\ngo         %s %s\nlibrdkafka %s\nmigration  %d\n", a.Version, revision, a.Go, a.Platform, a.Librdkafka, a.Migration)
			if err == nil && a.Failpoints {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "with failpoints: for tests, not to be deployed")
			}
			return err
		},
	}
}
