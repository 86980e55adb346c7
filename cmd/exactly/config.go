package main

import (
	"fmt"
	"sort"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/config"
)

func newConfig(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show the settings in force", Example: "  exactly config print"}
	cmd.AddCommand(&cobra.Command{
		Use: "print", Short: "Print every setting with its environment name, secrets redacted", Example: "  exactly config print --config exactly.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			all := c.Redacted()
			if g.json {
				return printJSON(cmd.OutOrStdout(), all)
			}
			names := make([]string, 0, len(all))
			for n := range all {
				names = append(names, n)
			}
			sort.Strings(names)
			for _, n := range names {
				fmt.Fprintf(cmd.OutOrStdout(), "%-30s %-42s %v\n", n, config.EnvName(n), all[n])
			}
			return nil
		},
	})
	return cmd
}
