package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/console"
	"github.com/exactly-pipeline/exactly/internal/console/guard"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
)

func newConsole(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "console", Short: "Show the whole deployment in a browser, read from Postgres and Kafka", Args: cobra.NoArgs,
		Long: `Serves pages that show where every partition is at this moment, what became of a record, the ledger, the dead letters, and audits. It reads; with
console.write operators can replay dead letters, too, and each deed is in the ledger under their name. On loopback by default; beyond it takes TLS,
and a token (exactly console token) or a client certificate. doc/console.md says what each page shows and who may see what.`,
		Example: "  exactly console\n  EXACTLY_CONSOLE_WRITE=true exactly console\n  exactly console token --name anna --role operator >> tokens",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			log, err := telemetry.NewLogger(c.Log)
			if err != nil {
				return usageError(err)
			}
			defer log.Sync() //nolint:errcheck // a terminal cannot be synced
			s, err := console.New(&c, console.Options{Build: version, Addr: c.Console.Addr, Log: log})
			if err != nil {
				return err
			}
			defer s.Close()
			return s.Serve(cmd.Context(), func(url string) { fmt.Fprintln(cmd.OutOrStdout(), "console at", url) })
		},
	}
	cmd.AddCommand(newConsoleToken(g))
	return cmd
}

func newConsoleToken(g *globals) *cobra.Command {
	var name, role string
	cmd := &cobra.Command{
		Use: "token", Short: "Make a token for somebody, and the line for console.tokens_file",
		Long: `Prints the line on standard output, to be appended to the file that console.tokens_file names, and the token on standard error, to be given to the
person. The file has a hash of the token only. A viewer looks; an operator also sees addresses and raw bytes, and does deeds where console.write is set.`,
		Example: "  exactly console token --name anna --role viewer >> /etc/exactly/tokens",
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, line, err := guard.NewToken(name, guard.Role(role))
			if err != nil {
				return usageError(err)
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"token": token, "line": line})
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "token:", token)
			_, err = fmt.Fprintln(cmd.OutOrStdout(), line)
			return err
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "whose it is: a `NAME` for the ledger")
	cmd.Flags().StringVar(&role, "role", string(guard.Viewer), "`ROLE`: viewer or operator")
	return cmd
}
