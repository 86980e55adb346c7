package stack

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/exactly-pipeline/exactly/internal/stack/apache"
	"github.com/exactly-pipeline/exactly/internal/stack/child"
)

// state is what a directory's stack must have again at its next start.
type state struct {
	Kind             Kind         `json:"kind"`
	ClusterID        string       `json:"cluster_id"`
	KafkaPort        int          `json:"kafka_port"`      // of the embedded broker
	Ports            apache.Ports `json:"ports,omitempty"` // of Apache Kafka's
	RegistryPort     int          `json:"registry_port"`
	PostgresPort     int          `json:"postgres_port"`
	PostgresPassword string       `json:"postgres_password"`

	path string
}

// loadState reads the directory's state. A directory without one gets a cluster id and a password of its own, and keeps
// them from here on: a second stack must not be taken for the first. A directory that holds another kind of stack, or another number
// of brokers, is refused: neither could read what the other has written.
func loadState(dir string, kind Kind, brokers int) (*state, error) {
	s := &state{path: filepath.Join(dir, "stack.json")}
	data, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		id, password := make([]byte, 16), make([]byte, 16)
		_, _ = rand.Read(id) // never fails (crypto/rand)
		_, _ = rand.Read(password)
		s.Kind = kind
		s.ClusterID, s.PostgresPassword = base64.RawURLEncoding.EncodeToString(id), hex.EncodeToString(password)
		return s, s.save()
	case err != nil:
		return nil, fmt.Errorf("read stack state: %w", err)
	}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read stack state %s: %w", s.path, err)
	}
	s.Kind = cmp.Or(s.Kind, Embedded) // written when there was no other
	if s.Kind != kind {
		return nil, fmt.Errorf("%s holds a stack of the kind %s, not %s: choose another directory", dir, s.Kind, kind)
	}
	if n := len(s.Ports); n > 0 && n != brokers {
		return nil, fmt.Errorf("%s holds a stack of %d brokers, not %d: choose another directory", dir, n, brokers)
	}
	return s, nil
}

// releasePorts lets others choose the ports again.
func (s *state) releasePorts() {
	for _, p := range []int{s.KafkaPort, s.RegistryPort, s.PostgresPort} {
		child.ReleasePort(p)
	}
	releasePorts(s.Ports)
}

func releasePorts(ports apache.Ports) {
	for _, broker := range ports {
		for _, p := range broker {
			child.ReleasePort(p)
		}
	}
}

func (s *state) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write stack state: %w", err)
	}
	return writeFile(s.path, append(data, '\n'), 0o600)
}

// lockDir takes the directory for this process. The lock is the kernel's and goes with the process, however it ends.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path)
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is %w (pid %s): stop that one, or choose another directory", dir, ErrInUse, holder)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := f.Truncate(0); err == nil { // only for the message above
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	return f, nil
}

// writeFile replaces a file so that a reader, and a machine that loses power, sees all of the old content or all of the new.
func writeFile(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
