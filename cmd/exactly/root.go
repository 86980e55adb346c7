package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/acl"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/internal/security"
)

// version is set by the build (-ldflags "-X main.version=…").
var version = "dev"

// globals are the flags every command has.
type globals struct {
	configFile string
	json       bool
	set        []string
	loaded     *config.Config // once a command has asked for the settings
}

func newRoot() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use:   "exactly",
		Short: "Clicks from a Kafka topic into Postgres and another topic, each exactly once, with proof",
		Long: `exactly reads clicks from a Kafka topic, enriches them, and lands each of them in Postgres and in another topic:
once, never twice, never not at all, whatever is killed and whenever; exactly audit proves it afterwards.

Every setting can stand in a YAML file (--config), in the environment (EXACTLY_KAFKA_BROKERS, EXACTLY_POSTGRES_DSN, …)
or on the command line (--set kafka.brokers=…); flags win over the environment, the environment over the file.
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 the check found something.`,
		Example:       "  exactly demo\n  exactly setup && exactly run",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&g.configFile, "config", "", "settings `FILE` (YAML)")
	root.PersistentFlags().BoolVar(&g.json, "json", false, "print data as JSON")
	root.PersistentFlags().StringArrayVar(&g.set, "set", nil, "a setting, as `NAME=VALUE` (repeatable); wins over the environment and the file")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(fmt.Errorf("%w: %s --help lists its flags", err, cmd.CommandPath()))
	})
	root.AddCommand(commands(g)...)
	root.InitDefaultCompletionCmd()
	complete(root)
	wrapArgs(root)
	g.wrapRefusals(root)
	return root
}

// wrapArgs makes wrong arguments exit with 2, as contract.md promises, for a command and those below it.
func wrapArgs(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.NoArgs
		if c.HasSubCommands() {
			check = cobra.ArbitraryArgs
			c.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return usageError(unknownCommand(cmd, args[0]))
				}
				return cmd.Help()
			}
		}
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError(fmt.Errorf("%w: %s --help shows how it is called", err, cmd.CommandPath()))
		}
		return nil
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

// unknownCommand says what may have been meant, or where all are listed.
func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	if like := cmd.SuggestionsFor(name); len(like) > 0 {
		return fmt.Errorf("there is no command %q: did you mean %s %s?", cmd.CommandPath()+" "+name, cmd.CommandPath(), strings.Join(like, ", or "+cmd.CommandPath()+" "))
	}
	return fmt.Errorf("there is no command %q: %s --help lists all", cmd.CommandPath()+" "+name, cmd.CommandPath())
}

// roles are what a command is to Kafka, for those whose rights `exactly setup --print-acls` lists.
var roles = map[string]acl.Role{"setup": acl.Setup, "run": acl.Worker, "offsets": acl.Worker, "heal": acl.Worker, "prune": acl.Worker, "erase": acl.Worker, "generate": acl.Generate, "audit": acl.Audit, "dlq": acl.Replay, "ledger": acl.Audit}

// wrapRefusals makes a command, and those below it, say of a connection that is refused, or a right that is missing, what to look at.
func (g *globals) wrapRefusals(c *cobra.Command) {
	if run := c.RunE; run != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			line := progress.New(cmd.ErrOrStderr())
			cmd.SetContext(progress.Watched(cmd.Context(), line))
			err := run(cmd, args)
			line.Clear()
			if err == nil || g.loaded == nil {
				return err
			}
			err = away(g.loaded, security.Explain(g.loaded, err))
			for c := cmd; c != nil; c = c.Parent() {
				if role, ok := roles[c.Name()]; ok {
					err = acl.Explain(cmd.Context(), g.loaded, role, err)
				}
			}
			return err
		}
	}
	for _, sub := range c.Commands() {
		g.wrapRefusals(sub)
	}
}

// load reads the settings; what is wrong with them is a usage error.
func (g *globals) load() (config.Config, error) {
	flags, err := g.flags()
	if err != nil {
		return config.Config{}, err
	}
	c, err := config.Load(g.configFile, os.Environ(), flags)
	if err != nil {
		return c, usageError(err)
	}
	g.loaded = &c
	return c, nil
}

// origins says where each setting comes from.
func (g *globals) origins() (map[string]string, error) {
	flags, err := g.flags()
	if err != nil {
		return nil, err
	}
	return config.Origins(g.configFile, os.Environ(), flags)
}

// flags are the settings given with --set.
func (g *globals) flags() (map[string]string, error) {
	flags := map[string]string{}
	for _, kv := range g.set {
		name, value, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, usageError(fmt.Errorf("--set %q: must be NAME=VALUE", kv))
		}
		if !slices.Contains(config.Names(), name) {
			return nil, usageError(fmt.Errorf("--set %s: unknown setting; known are %s", name, strings.Join(config.Names(), ", ")))
		}
		flags[name] = value
	}
	return flags, nil
}

// printJSON writes v as one indented JSON document.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
