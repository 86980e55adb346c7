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
	"github.com/exactly-pipeline/exactly/internal/stack/apache"
)

// devStartTimeout allows for a download of PostgreSQL, or of Apache Kafka, on a slow line.
const devStartTimeout = 10 * time.Minute

func newDev(g *globals) *cobra.Command {
	var data, envFile, kind string
	var brokers int
	var noSync bool
	cmd := &cobra.Command{
		Use:   "dev --data DIR",
		Short: "Run a Kafka broker, a schema registry and Postgres here, for development",
		Long: `Runs a stack in the foreground: a Kafka broker, a schema registry and a Postgres server on loopback, everything kept
below one directory. Ctrl-C or SIGTERM stops it; started again on the same directory, everything is still there.

--stack embedded, the default, has broker and registry built in. --stack kafka runs Apache Kafka, with --brokers 3 a cluster that goes on when
one of them is killed (it is started again), and Apicurio Registry: they need Java 17 and, to be fetched once, Maven.

It writes the settings that point the other commands at it to a file that a shell can source, then prints a line with 'ready'.
Topics and tables are made by 'exactly setup', not here.`,
		Example: "  exactly dev --data ./dev &\n  set -a; . ./dev/exactly.env; set +a\n  exactly setup && exactly run\n\n  exactly dev --stack kafka --brokers 3 --data ./dev3",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" {
				return usageError(errors.New("dev: --data DIR is missing: the directory to keep everything in"))
			}
			if kind != string(stack.Embedded) && kind != string(stack.Kafka) {
				return usageError(fmt.Errorf("dev: --stack %s: it must be %s or %s", kind, stack.Embedded, stack.Kafka))
			}
			if brokers < 1 || brokers > 9 || kind == string(stack.Embedded) && brokers != 1 {
				return usageError(fmt.Errorf("dev: --brokers %d: it must be 1 to 9 with --stack kafka, and 1 with the embedded stack", brokers))
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
			return runDev(cmd, g.json, envFile, stack.Options{
				Dir: dir, Kind: stack.Kind(kind), Apache: apache.Options{Brokers: brokers, Revive: true}, NoSyncKafka: noSync, NoSyncPostgres: noSync, Log: log,
			})
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "`DIR` to keep everything in; created if absent")
	cmd.Flags().StringVar(&envFile, "env-file", "", "`FILE` to write the settings to (default: exactly.env in DIR)")
	cmd.Flags().StringVar(&kind, "stack", string(stack.Embedded), "embedded, or kafka: Apache Kafka and Apicurio Registry")
	cmd.Flags().IntVar(&brokers, "brokers", 1, "how many brokers, with --stack kafka")
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
			"ready": true, "stack": s.String(), "data": o.Dir, "env_file": envFile, "brokers": s.Brokers(), "registry": s.RegistryURL(), "postgres": config.RedactDSN(s.DSN()),
		})
	} else {
		_, err = fmt.Fprintf(out, `ready: the stack in %s (%s)
  kafka     %s
  registry  %s
  postgres  %s
Use it from another shell:
  set -a; . %s; set +a; exactly setup; exactly run
Ctrl-C stops it; started again on the same directory, everything is still there.
`, o.Dir, s, s.Brokers(), s.RegistryURL(), config.RedactDSN(s.DSN()), stack.Quote(envFile))
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
