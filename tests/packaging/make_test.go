package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// makeImage runs `make image` where no other programs are to be found than sh and those given, which only tell how they were called.
func makeImage(t *testing.T, engines ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	sh, err := exec.LookPath("sh")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(sh, filepath.Join(dir, "sh")))
	for _, e := range engines {
		script := "#!" + sh + "\necho \"called: " + e + " $*\"\n"
		require.NoError(t, os.WriteFile(filepath.Join(dir, e), []byte(script), 0o700)) //nolint:gosec // a program
	}
	make, err := exec.LookPath("make")
	require.NoError(t, err, "apt-get install make")
	cmd := exec.Command(make, "image", "IMAGE=registry.example.org/exactly:1.2.3", "VERSION=v1.2.3", "REVISION=abc")
	cmd.Dir, cmd.Env = root, []string{"PATH=" + dir}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestMakeImage(t *testing.T) {
	const with = "--tag registry.example.org/exactly:1.2.3 --build-arg VERSION=v1.2.3 --build-arg REVISION=abc .\n"
	out, err := makeImage(t, "docker", "podman")
	require.NoError(t, err, out)
	require.Contains(t, out, "called: docker build "+with)
	out, err = makeImage(t, "podman")
	require.NoError(t, err, out)
	require.Contains(t, out, "called: podman build --format docker "+with)
	out, err = makeImage(t)
	require.Error(t, err)
	require.Contains(t, out, "missing: Docker or Podman")
	require.Contains(t, out, "apt-get install podman")
}
