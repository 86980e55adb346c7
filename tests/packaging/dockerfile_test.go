package packaging

import (
	"bytes"
	"go/version"
	"regexp"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/stretchr/testify/require"
)

// stages are the Dockerfile's, parsed as BuildKit does; every warning of its own linter fails the test.
func stages(t *testing.T) []instructions.Stage {
	t.Helper()
	parsed, err := parser.Parse(bytes.NewReader(read(t, "Dockerfile")))
	require.NoError(t, err)
	require.Empty(t, parsed.Warnings)
	all, args, err := instructions.Parse(parsed.AST, nil)
	require.NoError(t, err)
	require.Empty(t, args, "an ARG before the first FROM: this test does not expand it")
	require.Len(t, all, 2)
	return all
}

// Both bases are pinned, and fit each other: a program linked on one Debian does not start on an older one.
func TestBasesArePinned(t *testing.T) {
	all := stages(t)
	for _, s := range all {
		require.Regexp(t, `^[a-z0-9./-]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}$`, s.BaseName)
	}
	tag := regexp.MustCompile(`^golang:(\d+\.\d+\.\d+)-bookworm@`).FindStringSubmatch(all[0].BaseName)
	require.NotNil(t, tag, "built on %s, not on a golang image of Debian 12 with an exact version", all[0].BaseName)
	require.Regexp(t, `-debian12:nonroot@`, all[1].BaseName, "the C library of the base is not that of the build stage")

	wanted := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(read(t, "go.mod"))
	require.NotNil(t, wanted)
	require.GreaterOrEqual(t, version.Compare("go"+tag[1], "go"+string(wanted[1])), 0, "go.mod wants Go %s; the image does not fetch another", wanted[1])
}

// What the image says of itself, and how it is to be run.
func TestImage(t *testing.T) {
	i := built(t)
	for _, l := range []string{"title", "description", "licenses", "version", "revision", "base.name"} {
		require.NotEmpty(t, i.labels["org.opencontainers.image."+l], l)
	}
	require.Equal(t, testVersion, i.labels["org.opencontainers.image.version"])
	require.Equal(t, []string{"/usr/local/bin/exactly"}, i.entrypoint)
	require.Equal(t, []string{"run"}, i.command)
	require.Equal(t, []string{"/usr/local/bin/exactly", "health"}, i.health, "the base has no shell")
	require.Regexp(t, `^[1-9]\d*:[1-9]\d*$`, i.user, "by number: Kubernetes cannot tell a name from root's")
	c := settingsOK(t, "Dockerfile", "", i.env)
	require.Equal(t, []string{"8000"}, i.ports)
	require.Equal(t, ":8000", c.HTTP.Addr)
	for _, file := range []string{"LICENSE", "README.md", "NRO_LICENSE", "librdkafka.txt"} {
		require.FileExists(t, i.root+"/usr/share/doc/exactly/"+file, "it has to be passed on with the program")
	}
}
