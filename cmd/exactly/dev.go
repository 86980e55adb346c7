package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/stack"
)

// devStartTimeout allows for a download of PostgreSQL on a slow line.
const devStartTimeout = 5 * time.Minute

func newDev(g *globals) *cobra.Command {
	var data, envFile string
	var noSync bool
	cmd := &cobra.Command{
		Use:   "dev --data DIR",
		Short: "Run a Kafka broker, a schema registry and Postgres here, for development",
		Long: `Runs the embedded stack in the foreground: a Kafka broker, a schema registry and a Postgres server on loopback, everything kept
below one directory. Ctrl-C or SIGTERM stops it; started again on the same directory, everything is still there.

It writes the settings that point the other commands at it to a file that a shell can source, then prints a line with 'ready'.
Topics and tables are made by 'exactly setup', not here.`,
		Example: "  exactly dev --data ./dev &\n  set -a; . ./dev/exactly.env; set +a\n  exactly setup && exactly run",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" {
				return usageError(errors.New("dev: --data DIR is missing: the directory to keep everything in"))
			}
			c, err := g.load()
			if err != nil {
				return err
			}
			log, err := devLogger(c.Log)
			if err != nil {
				return err
			}
			defer func() { _ = log.Sync() }() // a terminal cannot be synced
			dir, err := filepath.Abs(data)
			if err != nil {
				return err
			}
			if envFile == "" {
				envFile = filepath.Join(dir, "exactly.env")
			} else if envFile, err = filepath.Abs(envFile); err != nil { // printed: '.' looks a bare name up in PATH
				return err
			}
			return runDev(cmd, g.json, envFile, stack.Options{Dir: dir, NoSyncKafka: noSync, NoSyncPostgres: noSync, Log: log})
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "`DIR` to keep everything in; created if absent")
	cmd.Flags().StringVar(&envFile, "env-file", "", "`FILE` to write the settings to (default: exactly.env in DIR)")
	cmd.Flags().BoolVar(&noSync, "no-sync", false, "leave writes to the page cache: faster; a power failure may lose some, a kill does not")
	return cmd
}

func runDev(cmd *cobra.Command, asJSON bool, envFile string, o stack.Options) (err error) {
	ctx := cmd.Context()
	startCtx, cancel := context.WithTimeout(ctx, devStartTimeout)
	defer cancel()
	s, err := stack.Start(startCtx, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to stop before it had started: that is no failure
		}
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	if err := stack.WriteEnv(envFile, s.Env()); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if asJSON {
		err = printJSON(out, map[string]any{
			"ready": true, "data": o.Dir, "env_file": envFile, "brokers": s.Brokers(), "registry": s.RegistryURL(), "postgres": config.RedactDSN(s.DSN()),
		})
	} else {
		_, err = fmt.Fprintf(out, `ready: the stack in %s
  kafka     %s
  registry  %s
  postgres  %s
Use it from another shell:
  set -a; . %s; set +a; exactly setup; exactly run
Ctrl-C stops it; started again on the same directory, everything is still there.
`, o.Dir, s.Brokers(), s.RegistryURL(), config.RedactDSN(s.DSN()), stack.Quote(envFile))
	}
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-s.Failed():
		return s.Err()
	}
}

// devLogger writes to standard error what the settings ask for.
func devLogger(c config.Log) (*zap.Logger, error) {
	z := zap.NewDevelopmentConfig()
	if c.Format == "json" {
		z = zap.NewProductionConfig()
	}
	level, err := zap.ParseAtomicLevel(c.Level)
	if err != nil {
		return nil, usageError(err)
	}
	z.Level, z.Development, z.DisableStacktrace, z.DisableCaller = level, false, true, true
	return z.Build()
}
