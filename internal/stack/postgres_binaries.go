package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	embedded "github.com/fergusstrange/embedded-postgres"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/stack/child"
)

// oldestPostgres is the oldest major version the migrations are written for.
const oldestPostgres = 14

// findBinaries returns a folder with initdb and postgres: the one asked for, the newest on this machine, or a downloaded one. A
// data directory that exists wants the major version it was made with.
func findBinaries(ctx context.Context, o Options, h *home) (string, error) {
	want, err := dataVersion(filepath.Join(h.dir, "data"))
	if err != nil {
		return "", err
	}
	candidates := []string{o.PostgresBin}
	if o.PostgresBin == "" {
		candidates = binaryFolders()
	}
	var seen []string
	for _, dir := range candidates {
		major, err := binaryVersion(ctx, dir)
		if err != nil || !h.reaches(filepath.Join(dir, "postgres")) {
			continue
		}
		if (want == 0 && major >= oldestPostgres) || major == want {
			return dir, nil
		}
		seen = append(seen, fmt.Sprintf("%d in %s", major, dir))
	}
	if o.PostgresBin != "" {
		return "", fmt.Errorf("no usable initdb and postgres in %s (needed: version %s)", o.PostgresBin, versionText(want))
	}
	dir, err := fetch(h, want, o.Log)
	if err != nil {
		return "", fmt.Errorf("no PostgreSQL %s on this machine (found: %s), and fetching one failed (%w): install it with `apt-get install postgresql` (Debian, Ubuntu), "+
			"`dnf install postgresql-server` (Fedora, RHEL) or `brew install postgresql@17` (macOS)", versionText(want), cmp.Or(strings.Join(seen, ", "), "none"), err)
	}
	return dir, nil
}

func versionText(want int) string {
	if want == 0 {
		return fmt.Sprintf("%d or newer", oldestPostgres)
	}
	return strconv.Itoa(want)
}

// dataVersion is the major version a data directory was made with, 0 if there is none.
func dataVersion(data string) (int, error) {
	v, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(v)))
}

// binaryFolders lists where PostgreSQL may be: PATH first (somebody chose it), then each packager's place, newest version first.
func binaryFolders() []string {
	var dirs []string
	if p, err := exec.LookPath("postgres"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(p))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/usr/libexec/postgresql*",
		"/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin", "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	} {
		found, _ := filepath.Glob(pattern) // the patterns are well-formed
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(numberIn(b), numberIn(a)) })
		dirs = append(dirs, found...)
	}
	return dirs
}

var digits = regexp.MustCompile(`\d+`)

func numberIn(path string) int {
	n, _ := strconv.Atoi(digits.FindString(path))
	return n
}

// binaryVersion is the major version of the postgres in dir; an error if that or initdb is missing.
func binaryVersion(ctx context.Context, dir string) (int, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0, err
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(digits.FindString(string(out)))
}

// fetchable are the releases embedded-postgres knows, by major version.
var fetchable = map[int]embedded.PostgresVersion{
	14: embedded.V14, 15: embedded.V15, 16: embedded.V16, 17: embedded.V17, 18: embedded.V18,
}

// fetch downloads PostgreSQL into the user's cache folder, once.
func fetch(h *home, want int, log *zap.Logger) (string, error) {
	want = cmp.Or(want, 17)
	version, ok := fetchable[want]
	if !ok {
		return "", fmt.Errorf("there is no download for version %d", want)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	if !h.reaches(filepath.Join(cache, "exactly")) { // root's home is closed to the user that runs the server
		cache = "/var/cache"
	}
	cache = filepath.Join(cache, "exactly")
	dir := filepath.Join(cache, "postgres-"+string(version))
	bin := filepath.Join(dir, "bin")
	if _, err := os.Stat(filepath.Join(bin, "initdb")); err == nil {
		return bin, nil
	}
	log.Info("fetching PostgreSQL, once", zap.String("version", string(version)), zap.String("os", runtime.GOOS), zap.String("to", cache))
	scratch, err := os.MkdirTemp("", "exactly-fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	port, err := child.FreePort(0)
	if err != nil {
		return "", err
	}
	// The library can only fetch on the way to running a server. A locale that does not exist ends it after the fetch, at initdb.
	ep := embedded.NewDatabase(embedded.DefaultConfig().Version(version).Port(uint32(port)).CachePath(cache).BinariesPath(dir).
		RuntimePath(filepath.Join(scratch, "run")).DataPath(filepath.Join(scratch, "data")).Locale("fetch-only").Logger(io.Discard))
	if err = ep.Start(); err == nil {
		err = ep.Stop()
	}
	if _, missing := os.Stat(filepath.Join(bin, "initdb")); missing != nil {
		return "", errors.Join(err, missing)
	}
	return bin, nil
}
