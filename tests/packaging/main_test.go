// Package packaging holds what users are given to run the program with to its word, where there is neither an engine for containers nor a
// cluster: the Dockerfile's steps are run and what they make is started as the image would start it; compose files, manifests, dashboards and
// alerts are read strictly, and held against the program's commands, settings and metrics.
package packaging

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// root is the top of the tree.
const root = "../.."

// scratch is this run's folder for what is built.
var scratch string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "exactly-packaging-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := writable(scratch); err == nil {
			_ = os.RemoveAll(scratch) // the system's temporary folder
		}
	}()
	return m.Run()
}

// writable gives the folders back to their owner: an image's tree is read-only.
func writable(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o700) //nolint:gosec // a folder
		}
		return err
	})
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return b
}

// setting is an environment variable's setting, "" if it is none.
func setting(variable string) string {
	for _, n := range config.Names() {
		if config.EnvName(n) == variable {
			return n
		}
	}
	return ""
}

// settingsOK loads what a container is given, as the program would: file may be empty. Names that are no setting fail the test.
func settingsOK(t *testing.T, what, file string, env map[string]string) config.Config {
	t.Helper()
	var environ []string
	for k, v := range env {
		if strings.HasPrefix(k, "EXACTLY_") {
			require.NotEmpty(t, setting(k), "%s: %s is no setting", what, k)
			environ = append(environ, k+"="+v)
		}
	}
	path := ""
	if file != "" {
		path = filepath.Join(t.TempDir(), "exactly.yaml")
		require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
	}
	c, err := config.Load(path, environ, nil)
	require.NoError(t, err, what)
	return c
}

// free is an address of loopback that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return string(b)
}

func number(t *testing.T, s string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 32)
	require.NoError(t, err)
	return uint32(n)
}
