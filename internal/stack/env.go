package stack

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

var plain = regexp.MustCompile(`^[a-zA-Z0-9_@%+=:,./-]*$`)

// WriteEnv replaces the file at path by KEY=value lines, sorted, that a POSIX shell can source. Only the owner may read it.
func WriteEnv(path string, env map[string]string) error {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(env)) {
		b.WriteString(k + "=" + Quote(env[k]) + "\n")
	}
	return writeFile(path, []byte(b.String()), 0o600)
}

// Quote makes one shell word. What needs no quotes gets none, so that readers other than shells understand the line too.
func Quote(s string) string {
	if plain.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
