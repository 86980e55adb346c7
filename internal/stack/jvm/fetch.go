package jvm

import (
	"context"
	"crypto/sha256"
	_ "embed" // pom.xml
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/exactly-pipeline/exactly/internal/wait"
)

//go:embed pom.xml
var pom []byte

// fetched is the folder with the programs that pom.xml names. It is in the user's cache folder, under the hash of pom.xml: another
// version of that file is another folder.
func fetched(ctx context.Context, say func(string)) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("where to keep Apache Kafka: %w", err)
	}
	cache = filepath.Join(cache, "exactly")
	dir := filepath.Join(cache, fmt.Sprintf("jvm-%x", sha256.Sum256(pom))[:20])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock, err := lockFile(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer lock.Close() // the lock goes with it
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // somebody else fetched it while we waited
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", errors.New("fetching Apache Kafka and Apicurio Registry, which happens once, needs Maven, and there is none: install it with " +
			"`apt-get install maven` (Debian, Ubuntu), `dnf install maven` (Fedora, RHEL) or `brew install maven` (macOS)")
	}
	say("fetching Apache Kafka and Apicurio Registry with Maven, once, to " + dir)
	draft, err := os.MkdirTemp(cache, "fetch-") // beside its later name: a rename must do
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(draft) //nolint:errcheck // of no use to anybody, and no harm
	out := filepath.Join(draft, "out")
	if err := os.WriteFile(filepath.Join(draft, "pom.xml"), pom, 0o600); err != nil {
		return "", err
	}
	// As a command that is killed with ctx, and all its children with it: mvn is a shell script.
	cmd := exec.CommandContext(ctx, mvn, "-q", "-B", "-f", filepath.Join(draft, "pom.xml"), "-Dout="+out, "package")
	cmd.Dir = draft
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch Apache Kafka and Apicurio Registry with Maven (%s): %w\n%s", mvn, errors.Join(err, ctx.Err()), lastLines(string(said), 12))
	}
	if err := os.Chmod(out, 0o755); err != nil {
		return "", err
	}
	return dir, os.Rename(out, dir)
}

// lockFile waits for the lock on path. It is the kernel's and goes with the process, however it ends.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if wait.For(ctx, 200*time.Millisecond) != nil {
			return nil, errors.Join(fmt.Errorf("wait for %s, in which another process fetches Apache Kafka: %w", path, ctx.Err()), f.Close())
		}
	}
}

func lastLines(s string, n int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
