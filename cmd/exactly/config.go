package main

import (
	"errors"
	"fmt"
	"os"
	"sort"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/ledger"
)

func newConfig(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check the settings, and show those in force",
		Example: "  exactly config check\n  exactly config print --origin"}
	cmd.AddCommand(newConfigCheck(g), newConfigPrint(g))
	return cmd
}

func newConfigCheck(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Check the settings, and the files they name, without asking anybody",
		Long: `Reads the settings as every other command does, opens the files they name (secrets, certificates, keys, the geo database), and looks for EXACTLY_
variables that are no setting. For a CI, or before a worker is restarted; whether the stores agree, exactly doctor says.
Exit codes: 0 nothing is wrong, 2 a setting or a file is wrong, 3 a variable is no setting (most likely misspelt: it changes nothing).`,
		Example: "  exactly config check --config exactly.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			if err := namedFiles(&c); err != nil {
				return usageError(err)
			}
			origins, err := g.origins()
			if err != nil {
				return err
			}
			given := 0
			for _, o := range origins {
				if o != config.OfDefault {
					given++
				}
			}
			unknown := append([]string{}, config.UnknownEnv(os.Environ())...)
			if g.json {
				err = printJSON(cmd.OutOrStdout(), map[string]any{"settings": len(origins), "given": given, "unknown_variables": unknown})
			} else {
				for _, n := range unknown {
					fmt.Fprintf(cmd.OutOrStdout(), "%s is no setting: misspelt? exactly config print lists all names\n", n)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d settings, %d of them given: nothing is wrong with them\n", len(origins), given)
			}
			if err == nil && len(unknown) > 0 {
				return found()
			}
			return err
		},
	}
}

// namedFiles opens what the settings name and a worker would open. What Load has opened is not asked again.
func namedFiles(c *config.Config) error {
	var errs []error
	if _, err := clicks.OpenGeo(c.Geo.Database); err != nil {
		errs = append(errs, fmt.Errorf("geo.database (EXACTLY_GEO_DATABASE): %w", err))
	}
	if _, err := ledger.LoadSigner(c.Ledger.SigningKeyFile); err != nil {
		errs = append(errs, fmt.Errorf("ledger.signing_key_file (EXACTLY_LEDGER_SIGNING_KEY_FILE): %w", err))
	}
	if _, err := c.Privacy.IPKey(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func newConfigPrint(g *globals) *cobra.Command {
	var origin bool
	cmd := &cobra.Command{
		Use: "print", Short: "Print every setting with its environment name, secrets redacted",
		Long: `With --origin also where each value comes from: the default, the settings file, its environment variable, or --set. A default of 0 is shown as what a worker
derives from it.`,
		Example: "  exactly config print --config exactly.yaml\n  exactly config print --origin | grep -v ' default '",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			all := c.Redacted()
			origins, err := g.origins()
			if err != nil {
				return err
			}
			if g.json && origin {
				with := map[string]any{}
				for n, v := range all {
					with[n] = map[string]any{"value": v, "origin": origins[n]}
				}
				return printJSON(cmd.OutOrStdout(), with)
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), all)
			}
			names := make([]string, 0, len(all))
			for n := range all {
				names = append(names, n)
			}
			sort.Strings(names)
			for _, n := range names {
				from := ""
				if origin {
					from = fmt.Sprintf("%-42s ", origins[n])
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%-30s %-42s %s%v\n", n, config.EnvName(n), from, all[n])
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&origin, "origin", false, "say where each value comes from")
	return cmd
}
