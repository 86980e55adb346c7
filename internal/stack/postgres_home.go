package stack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

// home is the server's directory and the user it runs as. Postgres refuses to run as root, so root runs it as somebody else.
type home struct {
	dir  string
	cred *syscall.Credential // nil: as ourselves
	// fd is the directory, held open for a user who may not walk to it (root's temporary folders are closed to others). Postgres
	// reaches it through /proc/self/fd, which asks for no permission on the folders above; opening those up is not ours to do.
	fd *os.File
}

func openHome(dir string) (*home, error) {
	h := &home{dir: dir}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return h, nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 0 { // ours from an earlier start, perhaps not as root
		h.cred = &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
	} else {
		if h.cred, err = unprivileged(); err != nil {
			return nil, err
		}
		if err := os.Chown(dir, int(h.cred.Uid), int(h.cred.Gid)); err != nil {
			return nil, err
		}
	}
	if !h.reaches(dir) {
		if runtime.GOOS != "linux" {
			return nil, fmt.Errorf("the user that runs postgres (uid %d) may not enter the folders above %s: choose another directory, or do not run as root", h.cred.Uid, dir)
		}
		if h.fd, err = os.Open(dir); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *home) close() {
	if h.fd != nil {
		_ = h.fd.Close()
	}
}

// unprivileged is the user to run Postgres as when we are root.
func unprivileged() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("postgres does not run as root, and there is neither a user postgres nor nobody to run it as: create one, or do not run as root")
}

// reaches says whether the server's user may walk to path, by the permission bits of the folders above it.
func (h *home) reaches(path string) bool {
	if h.cred == nil {
		return true
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		path = filepath.Clean(path) // not there yet: the folders above still tell
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // made later, by us
		}
		if err != nil {
			return false
		}
		bit, owner := fs.FileMode(0o001), info.Sys().(*syscall.Stat_t)
		switch {
		case owner.Uid == h.cred.Uid:
			bit = 0o100
		case owner.Gid == h.cred.Gid:
			bit = 0o010
		}
		if info.Mode()&bit == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// path is a file of the home as the server's user can name it.
func (h *home) path(name string) string {
	if h.fd != nil {
		return filepath.Join("/proc/self/fd/3", name) // the first of ExtraFiles
	}
	return filepath.Join(h.dir, name)
}

// write makes a file that only the server's user may read.
func (h *home) write(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	if h.cred == nil {
		return nil
	}
	return os.Chown(path, int(h.cred.Uid), int(h.cred.Gid))
}

// command is a Postgres program as the server's user runs it.
func (h *home) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"                                               // where we are may be closed to that user, and initdb insists on coming back to it
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")} // no PG… of ours: they would win over arguments
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: h.cred}
	if h.fd != nil {
		cmd.ExtraFiles = []*os.File{h.fd}
	}
	return cmd
}
