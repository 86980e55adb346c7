package jvm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// tools replaces PATH by a folder with these scripts, the shell, and what they need.
func tools(t *testing.T, scripts map[string]string) {
	t.Helper()
	bin := t.TempDir()
	for name, script := range scripts {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script), 0o755))
	}
	t.Setenv("PATH", bin)
	t.Setenv("JAVA_HOME", "")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", os.Getenv("XDG_CACHE_HOME")) // where there is no XDG
}

const java17 = `echo 'openjdk version "17.0.15" 2025-04-15' >&2`

func find(t *testing.T) (*Programs, []string, error) {
	t.Helper()
	var mu sync.Mutex
	var said []string
	p, err := Find(t.Context(), func(s string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, s)
	})
	return p, said, err
}

func TestMissing(t *testing.T) {
	tools(t, nil)
	_, _, err := find(t)
	require.ErrorContains(t, err, "apt-get install openjdk-17-jre-headless")

	tools(t, map[string]string{"java": `echo 'java version "1.8.0_202"' >&2`})
	_, _, err = find(t)
	require.ErrorContains(t, err, "needs Java 17 or newer (found: ")
	require.ErrorContains(t, err, "which is 8")

	tools(t, map[string]string{"java": "exit 1"})
	_, _, err = find(t)
	require.ErrorContains(t, err, "which does not run")

	tools(t, map[string]string{"java": java17})
	_, _, err = find(t)
	require.ErrorContains(t, err, "apt-get install maven")
}

func TestJavaHome(t *testing.T) {
	tools(t, map[string]string{"java": "exit 1"})
	home := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(home, "bin"), 0o755))
	java := filepath.Join(home, "bin", "java")
	require.NoError(t, os.WriteFile(java, []byte("#!/bin/sh\necho 'openjdk version \"21\"' >&2\n"), 0o755))
	t.Setenv("JAVA_HOME", home)
	found, _, err := findJava(t.Context())
	require.NoError(t, err)
	require.Equal(t, java, found)
}

// mvn as this package calls it: it makes the folder it is given. Builtins only: there is nothing else in PATH.
const mvn = `
for a; do case $a in -Dout=*) out=${a#-Dout=} ;; esac; done
/bin/mkdir -p "$out/kafka" "$out/registry"
: >"$out/registry/app-runner.jar"
echo fetched >>"$XDG_CACHE_HOME/fetches"
`

func TestFetchedOnce(t *testing.T) {
	tools(t, map[string]string{"java": java17, "mvn": mvn})
	var wg sync.WaitGroup
	dirs := make([]string, 4)
	for i := range dirs {
		wg.Go(func() {
			dir, err := fetched(t.Context(), func(string) {})
			if err == nil {
				dirs[i] = dir
			}
		})
	}
	wg.Wait()
	for _, d := range dirs {
		require.NotEmpty(t, d)
		require.Equal(t, dirs[0], d)
	}
	fetches, err := os.ReadFile(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "fetches"))
	require.NoError(t, err)
	require.Equal(t, "fetched\n", string(fetches))
	p, said, err := find(t)
	require.NoError(t, err)
	require.Empty(t, said, "nothing was fetched again")
	cmd, err := p.Registry([]string{"-Dx=y"})
	require.NoError(t, err)
	require.Contains(t, strings.Join(cmd.Args, " "), "-Dx=y -jar "+dirs[0])
	leftovers, err := filepath.Glob(filepath.Join(filepath.Dir(dirs[0]), "fetch-*"))
	require.NoError(t, err)
	require.Empty(t, leftovers)
}

// A fetch that fails leaves nothing that would be taken for the programs, and says why.
func TestFetchFails(t *testing.T) {
	tools(t, map[string]string{"java": java17, "mvn": mvn + "echo '[ERROR] no route to host'; exit 1"})
	_, said, err := find(t)
	require.ErrorContains(t, err, "no route to host")
	require.Len(t, said, 1)
	_, _, err = find(t)
	require.Error(t, err)
}

func TestFetchIsBounded(t *testing.T) {
	tools(t, map[string]string{"mvn": "while :; do :; done"})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := fetched(ctx, func(string) { cancel() })
	require.ErrorIs(t, err, context.Canceled)

	held, err := lockFile(t.Context(), filepath.Join(t.TempDir(), "lock"))
	require.NoError(t, err)
	defer held.Close()
	_, err = lockFile(ctx, held.Name())
	require.True(t, errors.Is(err, context.Canceled), "%v", err)
}

func TestEnvironment(t *testing.T) {
	for _, name := range []string{"KAFKA_OPTS", "JAVA_TOOL_OPTIONS", "QUARKUS_PROFILE", "EXACTLY_POSTGRES_DSN", "KEPT"} {
		t.Setenv(name, "x")
	}
	env := strings.Join(environ(), "\n") + "\n"
	require.Contains(t, env, "KEPT=x\n")
	for _, gone := range []string{"KAFKA_", "JAVA_TOOL_", "QUARKUS_", "EXACTLY_"} {
		require.NotContains(t, env, "\n"+gone)
	}
}
