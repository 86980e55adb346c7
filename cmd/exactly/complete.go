package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/acl"
	"github.com/exactly-pipeline/exactly/internal/config"
)

// complete tells shells what may stand behind a flag. What they complete must not need a store: a Tab would wait for it.
func complete(root *cobra.Command) {
	must(root.RegisterFlagCompletionFunc("set", func(_ *cobra.Command, _ []string, typed string) (names []string, _ cobra.ShellCompDirective) {
		for _, n := range config.Names() {
			if strings.HasPrefix(n, typed) {
				names = append(names, n+"=")
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}))
	must(root.MarkPersistentFlagFilename("config", "yaml", "yml"))
	roles := []string{"all"}
	for _, r := range acl.Roles {
		roles = append(roles, string(r))
	}
	for _, f := range []struct {
		command, flag string
		values        []string
	}{
		{"setup", "print-acls", roles}, {"dev", "stack", []string{"embedded", "kafka"}},
		{"dlq list", "state", []string{"open", "requested", "replayed"}}, {"dlq show", "state", []string{"open", "requested", "replayed"}},
		{"dlq export", "state", []string{"open", "requested", "replayed"}},
	} {
		cmd, _, err := root.Find(strings.Fields(f.command))
		must(err)
		must(cmd.RegisterFlagCompletionFunc(f.flag, cobra.FixedCompletions(f.values, cobra.ShellCompDirectiveNoFileComp)))
	}
	for _, f := range []string{"dev --data", "demo --keep", "chaos --out", "ledger archive --out", "audit --archive", "man --dir"} {
		command, flag, _ := strings.Cut(f, " --")
		cmd, _, err := root.Find(strings.Fields(command))
		must(err)
		must(cmd.MarkFlagDirname(flag))
	}
}

// must is for what only a change to this program can break, and every one of its tests would find.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
