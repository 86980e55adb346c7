package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
	"github.com/exactly-pipeline/exactly/migrations"
)

func newSetup(g *globals) *cobra.Command {
	var accept string
	var acls aclFlags
	cmd := &cobra.Command{
		Use: "setup", Short: "Make the tables, topics and schemas that are missing",
		Long: `Makes what is missing and says what it changed. Safe to repeat; it never deletes anything.

With --print-acls it makes nothing, and prints the least rights that each command needs of Kafka, as calls of Kafka's own tool, for
an administrator to look at and run (append --command-config FILE, the administrator's own settings).`,
		Example: "  exactly setup\n  exactly setup --print-acls --principal User:exactly\n  exactly setup --print-acls=worker --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			if acls.print != "" {
				return g.printACLs(cmd.OutOrStdout(), &c, &acls)
			}
			log, err := telemetry.NewLogger(c.Log)
			if err != nil {
				return usageError(err)
			}
			did, err := provision.Setup(cmd.Context(), &c, provision.Options{AcceptRecreated: accept, Log: log})
			return g.report(cmd, did, err)
		},
	}
	cmd.Flags().StringVar(&accept, "accept-recreated", "", "go on with a recreated cluster or topic as it is now, and note `REASON`")
	cmd.Flags().StringVar(&acls.print, "print-acls", "", "print the rights that `ROLE` needs of Kafka (setup, worker, generate, audit or all) and do nothing else")
	cmd.Flags().Lookup("print-acls").NoOptDefVal = "all"
	cmd.Flags().StringVar(&acls.principal, "principal", "User:exactly", "with --print-acls: who is given them")
	return cmd
}

func newMigrate(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "migrate", Short: "Apply the database migrations that are missing", Example: "  exactly migrate\n  exactly migrate status",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			did, err := provision.Migrate(cmd.Context(), c.Postgres.DSN)
			return g.report(cmd, did, err)
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use: "status", Short: "Say which version the database has, exit 3 if it is not this program's", Example: "  exactly migrate status",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			have, want, err := migrations.Versions(cmd.Context(), c.Postgres.DSN)
			if err != nil {
				return err
			}
			if g.json {
				err = printJSON(cmd.OutOrStdout(), map[string]int64{"database": have, "program": want})
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "database %d, program %d\n", have, want)
			}
			if err == nil && have != want {
				return &exitError{code: 3, err: &migrations.ErrVersion{Have: have, Want: want}}
			}
			return err
		},
	})
	return cmd
}

// report prints what a command changed, also when it failed half way.
func (g *globals) report(cmd *cobra.Command, did []string, err error) error {
	if g.json {
		if did == nil {
			did = []string{}
		}
		if perr := printJSON(cmd.OutOrStdout(), map[string]any{"changed": did}); err == nil {
			err = perr
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
}
