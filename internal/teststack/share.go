package teststack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// sharedVariable names the file in which Share tells of what is shared.
const sharedVariable = "TEST_STACK_SHARED"

// told is that file.
type told struct {
	Beside stack.Beside
	Error  string // why there is none
}

// Share starts a broker and a registry, as TEST_STACK asks for them, for all packages that Join. It returns at once: packages are built
// meanwhile, and those that join wait. env is what the packages have to be told by. stop ends what was started, and returns how that went.
func Share(ctx context.Context, dir string) (env string, stop func() error, err error) {
	o := stack.Options{Dir: filepath.Join(dir, "stack"), Only: stack.Broker | stack.Registry}
	if err := asked(&o); err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	file, done := filepath.Join(dir, "shared.json"), make(chan struct{})
	var s *stack.Stack
	var failed error
	go func() {
		defer close(done)
		var t told
		if s, failed = stack.Start(ctx, o); failed != nil {
			t.Error = failed.Error()
		} else {
			t.Beside = stack.Beside{Brokers: s.Brokers(), RegistryURL: s.RegistryURL()}
		}
		failed = errors.Join(failed, t.write(file))
	}()
	return sharedVariable + "=" + file, func() error {
		cancel()
		<-done
		if s == nil {
			return failed
		}
		return errors.Join(failed, s.Err(), s.Stop())
	}, nil
}

// write makes the file, whole.
func (t told) write(file string) error {
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// Join is Start for a package that only uses the broker and the registry: it ends and changes neither, and gives its topics, groups, transactional
// ids and subjects names that are no other package's. Where there is something to be shared, only Postgres is its own.
func Join(ctx context.Context, o stack.Options) (*stack.Stack, error) {
	file := os.Getenv(sharedVariable)
	if file == "" {
		return Start(ctx, o)
	}
	if err := asked(&o); err != nil {
		return nil, err
	}
	for {
		data, err := os.ReadFile(file)
		if err == nil {
			var t told
			if err := json.Unmarshal(data, &t); err != nil {
				return nil, fmt.Errorf("read %s: %w", file, err)
			}
			if t.Error != "" {
				return nil, errors.New("the stack to be shared: " + t.Error)
			}
			o.Beside = &t.Beside
			fmt.Println(Says + o.String())
			return stack.Start(ctx, o)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if wait.For(ctx, 100*time.Millisecond) != nil {
			return nil, fmt.Errorf("wait for the stack to be shared (%s): %w", file, ctx.Err())
		}
	}
}
