package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
	"github.com/exactly-pipeline/exactly/migrations"
)

func newSetup(g *globals) *cobra.Command {
	var accept string
	var acls aclFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use: "setup", Short: "Make the tables, roles, topics and schemas that are missing",
		Long: `Makes what is missing and says what it changed. Safe to repeat; it never deletes anything.

Who may do what in the database is up to three roles, exactly_setup, exactly_worker and exactly_auditor: users log in as members of one of them.
Where this user may not make roles, the SQL for whoever may is printed, and everything else is done.

With --print-acls it makes nothing, and prints the least rights that each command needs of Kafka, as calls of Kafka's own tool, for
an administrator to look at and run (append --command-config FILE, the administrator's own settings).`,
		Example: "  exactly setup --dry-run\n  exactly setup\n  exactly setup --print-acls --principal User:exactly\n  exactly setup --print-acls=worker --json",
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
			o := provision.Options{AcceptRecreated: accept, Log: log}
			if dryRun {
				would, err := provision.Plan(cmd.Context(), &c, o)
				return g.planned(cmd, would, err)
			}
			did, err := provision.Setup(cmd.Context(), &c, o)
			return g.reportSetup(cmd, c.Postgres.DSN, did, err)
		},
	}
	cmd.Flags().StringVar(&accept, "accept-recreated", "", "go on with a recreated cluster or topic as it is now, and note `REASON`")
	cmd.Flags().StringVar(&acls.print, "print-acls", "", "print the rights that `ROLE` needs of Kafka (setup, worker, generate, audit or all) and do nothing else")
	cmd.Flags().Lookup("print-acls").NoOptDefVal = "all"
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be changed")
	cmd.Flags().StringVar(&acls.principal, "principal", "User:exactly", "with --print-acls: who is given them")
	return cmd
}

func newMigrate(g *globals) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "migrate", Short: "Apply the database migrations that are missing", Example: "  exactly migrate\n  exactly migrate status",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			if dryRun {
				would, err := provision.PlanMigrate(cmd.Context(), c.Postgres.DSN)
				return g.planned(cmd, would, err)
			}
			did, err := provision.Migrate(cmd.Context(), c.Postgres.DSN)
			return g.reportSetup(cmd, c.Postgres.DSN, did, err)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be changed")
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

// planned prints what would be changed.
func (g *globals) planned(cmd *cobra.Command, would []string, err error) error {
	if g.json {
		return errors.Join(err, printJSON(cmd.OutOrStdout(), map[string]any{"dry_run": true, "would": append([]string{}, would...)}))
	}
	for _, line := range would {
		fmt.Fprintln(cmd.OutOrStdout(), "would", line)
	}
	if err == nil && len(would) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "nothing to change")
	}
	return err
}

// reportSetup prints what was changed, also when it failed half way, and what is left to somebody who may do more.
func (g *globals) reportSetup(cmd *cobra.Command, dsn string, did []string, err error) error {
	var toDo []string
	if err == nil {
		toDo, err = provision.RolesToDo(cmd.Context(), dsn)
	}
	if g.json {
		return errors.Join(err, printJSON(cmd.OutOrStdout(), map[string]any{"changed": append([]string{}, did...), "left_to_do": append([]string{}, toDo...)}))
	}
	for _, line := range did {
		fmt.Fprintln(cmd.OutOrStdout(), line)
	}
	if err == nil && len(did) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "nothing to change")
	}
	if len(toDo) > 0 {
		fmt.Fprintln(cmd.OutOrStdout(), provision.Explain(toDo))
	}
	return err
}
