package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan(_ *globals) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "man [COMMAND]...", Short: "Print a command's manual page, or write all of them to a folder",
		Long: `Pages are made of what --help says, in section 1. Without --dir the page of one command is printed, to be read with man; with it a file is written for
every command there is, as exactly-offsets-restore.1, for a folder of MANPATH.`,
		Example: "  exactly man | man -l -\n  exactly man offsets restore | man -l -\n  exactly man --dir /usr/local/share/man/man1",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			head := &doc.GenManHeader{Section: "1", Source: "exactly " + version, Manual: "exactly", Date: builtOf()}
			root := cmd.Root()
			quiet(root)
			if dir != "" {
				if len(args) > 0 {
					return usageError(errors.New("--dir writes all pages: it goes with no command's name"))
				}
				return manTree(cmd, root, head, dir)
			}
			page, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usageError(fmt.Errorf("there is no command %q", "exactly "+strings.Join(args, " ")))
			}
			return doc.GenMan(page, head, cmd.OutOrStdout())
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			if at, _, err := cmd.Root().Find(args); err == nil {
				for _, c := range at.Commands() {
					names = append(names, c.Name()+"\t"+c.Short)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "write all pages into `FOLDER`, which is made if need be")
	return cmd
}

// builtOf is when the source was committed, so that the pages of one version are the same whoever makes them when; nil: nobody knows, and it is today.
func builtOf() *time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, s := range info.Settings {
		if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
			return &t
		}
	}
	return nil
}

// quiet leaves out the line that tells when a page was made.
func quiet(c *cobra.Command) {
	c.DisableAutoGenTag = true
	for _, sub := range c.Commands() {
		quiet(sub)
	}
}

func manTree(cmd, root *cobra.Command, head *doc.GenManHeader, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write the manual: %w", err)
	}
	if err := doc.GenManTree(root, head, dir); err != nil {
		return fmt.Errorf("write the manual: %w", err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, root.Name()+"*.1"))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d pages in %s\n", len(pages), dir)
	return err
}
