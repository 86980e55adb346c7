package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/exactly-pipeline/exactly/internal/acl"
	"github.com/exactly-pipeline/exactly/internal/config"
)

// aclFlags are those flags of setup that print rights instead of making anything.
type aclFlags struct {
	print     string // a role, or all; empty: not asked for
	principal string
}

var principals = regexp.MustCompile(`^[A-Za-z]+:.+$`)

func (f *aclFlags) roles() ([]acl.Role, error) {
	if !principals.MatchString(f.principal) {
		return nil, usageError(fmt.Errorf("--principal %q: must be TYPE:NAME, such as User:exactly or User:CN=exactly,O=Example", f.principal))
	}
	if f.print == "all" {
		return acl.Roles, nil
	}
	if !slices.Contains(acl.Roles, acl.Role(f.print)) {
		return nil, usageError(fmt.Errorf("--print-acls=%s: must be one of %s, or all", f.print, strings.Trim(fmt.Sprint(acl.Roles), "[]")))
	}
	return []acl.Role{acl.Role(f.print)}, nil
}

// printACLs writes the rights that each role needs: as calls of Kafka's tool, or as JSON.
func (g *globals) printACLs(out io.Writer, c *config.Config, f *aclFlags) error {
	roles, err := f.roles()
	if err != nil {
		return err
	}
	type principalRule struct {
		Principal string `json:"principal"`
		acl.Rule
		Command string `json:"command"`
	}
	var all []principalRule
	for _, role := range roles {
		if !g.json {
			fmt.Fprintf(out, "# %s\n", role)
		}
		for _, r := range acl.Rules(c, role) {
			command := r.Command(c.Kafka.Brokers, f.principal)
			if g.json {
				all = append(all, principalRule{f.principal, r, command})
			} else {
				fmt.Fprintf(out, "%s   # %s\n", command, r.Why)
			}
		}
	}
	if g.json {
		return printJSON(out, all)
	}
	return nil
}
