package packaging

import (
	"context"
	"debug/elf"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// offered is what the base image has for a program to be linked with: Debian's libc6, and nothing else (no libgcc, no OpenSSL).
var offered = regexp.MustCompile(`^(ld-linux-[a-z0-9-]+|libc|libm|libdl|libpthread|librt|libresolv|libutil|libanl|libnss_[a-z]+)\.so\.\d+$`)

// box is the image's tree with the libraries of the base in it, as this machine has them. Nobody may write in it.
type box struct {
	*image
	loader string // the dynamic loader, as the program asks for it
}

// boxed completes the tree the Dockerfile's steps made.
func boxed(t *testing.T) *box {
	t.Helper()
	b := &box{image: built(t)}
	if os.Geteuid() != 0 {
		t.Log("not root: the image's program runs as this user, and outside of its tree")
	}
	bin := filepath.Join(b.root, b.entrypoint[0])
	f, err := elf.Open(bin)
	require.NoError(t, err)
	defer f.Close()
	needed, err := f.ImportedLibraries()
	require.NoError(t, err)
	for _, lib := range needed {
		require.Regexp(t, offered, lib, "the base image does not have it")
	}
	interp := f.Section(".interp")
	require.NotNil(t, interp)
	name, err := interp.Data()
	require.NoError(t, err)
	b.loader = strings.TrimRight(string(name), "\x00")

	list, err := exec.Command(b.loader, "--list", bin).CombinedOutput()
	require.NoError(t, err, "%s", list)
	copies := []string{b.loader}
	for _, m := range regexp.MustCompile(`(?m)^\s+\S+ => (/\S+) \(`).FindAllStringSubmatch(string(list), -1) {
		copies = append(copies, m[1])
	}
	require.Len(t, copies, 1+strings.Count(string(list), " => /"), "%s", list)
	for _, p := range copies {
		if _, err := os.Stat(filepath.Join(b.root, p)); err != nil {
			require.NoError(t, copyFile(p, filepath.Join(b.root, p)))
		}
	}
	require.NoError(t, filepath.WalkDir(b.root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.Chmod(p, info.Mode().Perm()&^0o222)
	}))
	return b
}

// process is a process of a container: the image's environment and env, nothing of this machine's; the tree as its root; the image's
// user. Where the tests don't run as root they can't change the root: then it is this user, and the libraries are still those of the tree.
func (b *box) process(ctx context.Context, t *testing.T, env map[string]string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = []string{}
	for _, m := range []map[string]string{b.env, env} {
		for k, v := range m {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	if os.Geteuid() == 0 {
		uid, gid, _ := strings.Cut(b.user, ":")
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: b.root, Credential: &syscall.Credential{Uid: number(t, uid), Gid: number(t, gid)}}
		cmd.Dir = "/"
		return cmd
	}
	libraries := []string{}
	for _, dir := range []string{filepath.Dir(b.loader), "/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64"} {
		libraries = append(libraries, filepath.Join(b.root, dir))
	}
	loader := filepath.Join(b.root, b.loader)
	cmd.Path = loader
	cmd.Args = append([]string{loader, "--library-path", strings.Join(libraries, ":"), filepath.Join(b.root, args[0])}, args[1:]...)
	return cmd
}

// try runs one command to its end, which must come within half a minute.
func (b *box) try(t *testing.T, env map[string]string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := b.process(ctx, t, env, args...)
	out, _ := cmd.CombinedOutput()
	require.NotNil(t, cmd.ProcessState, "%v did not start", args)
	require.NoError(t, ctx.Err(), "%v: %s", args, out)
	return string(out), cmd.ProcessState.ExitCode()
}

// exactly runs a command of the program, which must be exit 0.
func (b *box) exactly(t *testing.T, env map[string]string, args ...string) string {
	t.Helper()
	out, code := b.try(t, env, append([]string{b.entrypoint[0]}, args...)...)
	require.Zero(t, code, "exactly %v: %s", args, out)
	return out
}

const patience = 30 * time.Second // for anything to happen on a crowded machine

// The image's worker, started as the image says, on a stack: its health check tells what it should at each stage, and what it shows at
// /metrics is what dashboards and alerts ask for.
func TestImageRuns(t *testing.T) {
	b := boxed(t)
	require.Contains(t, b.exactly(t, nil, "--version"), testVersion)

	s, err := teststack.Start(t.Context(), stack.Options{Dir: filepath.Join(scratch, "data")})
	require.NoError(t, err)
	defer s.Stop() //nolint:errcheck // its folder goes as well
	env := s.Env()
	env["EXACTLY_WORKER_ID"] = "worker-1"
	env["EXACTLY_HTTP_ADDR"] = free(t) // :8000 may be taken here
	health := func(flags ...string) int {
		out, code := b.try(t, env, append(b.health, flags...)...)
		require.NotEmpty(t, out)
		return code
	}
	require.Equal(t, 1, health(), "healthy before it has started")

	b.exactly(t, env, "setup")
	worker := b.process(context.Background(), t, env, append(b.entrypoint, b.command...)...)
	log := &strings.Builder{}
	worker.Stderr = log
	require.NoError(t, worker.Start())
	ended := make(chan error, 1)
	go func() { ended <- worker.Wait() }()
	defer worker.Process.Kill() //nolint:errcheck // it has ended, if all is well

	require.Eventually(t, func() bool { return health() == 0 }, patience, 200*time.Millisecond, "not healthy")
	b.exactly(t, env, "generate", "--rate", "0", "--count", "2000", "--seed", "7", "--bad-share", "0.01")
	var text string
	require.Eventually(t, func() bool {
		text = get(t, "http://"+env["EXACTLY_HTTP_ADDR"]+"/metrics")
		return strings.Contains(text, "\nexactly_captured_records_total 2000\n") && strings.Contains(text, "\nexactly_published_messages_total 2000\n") &&
			strings.Contains(text, "exactly_lag_records{")
	}, patience, 200*time.Millisecond, "2000 clicks did not come through")
	require.Zero(t, health("--ready"))
	require.NotRegexp(t, `(?m)^exactly_gap_records\{.*\} [^0]`, text, "everything is published, and there is a gap")
	// Read from /proc, which a container has, and the tree here has not; and what there is only once a store was away.
	checkQueries(t, text, "process_", "exactly_partition_waiting", "exactly_transient_failures")

	b.exactly(t, env, "offsets", "hold", "--partition", "0", "--reason", "packaging test")
	require.Eventually(t, func() bool {
		b.exactly(t, env, "generate", "--rate", "0", "--count", "200", "--seed", "8") // a worker finds out at its next capture
		return health("--ready") == 1
	}, patience, 200*time.Millisecond, "ready with a held partition")
	require.Zero(t, health(), "a held partition is no reason to restart")

	require.NoError(t, worker.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-ended:
		require.NoError(t, err, "%s", log)
	case <-time.After(patience):
		require.Fail(t, "the worker did not stop")
	}
	require.Equal(t, 1, health(), "healthy after it has ended")
	require.Contains(t, log.String(), `"msg":"consuming"`, "the image logs JSON")
}
