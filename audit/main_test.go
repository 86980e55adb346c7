package audit

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// shared is one broker, registry and Postgres for all tests; each test has its own schema, topics and group on them.
var shared *stack.Stack

func TestMain(m *testing.M) {
	if o := os.Getenv(benchEnv); o != "" {
		os.Exit(benchMain(o))
	}
	code := func() (code int) {
		dir, err := os.MkdirTemp("", "audit")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		shared, err = teststack.Join(context.Background(), stack.Options{Dir: dir})
		if err != nil {
			panic(err)
		}
		code = m.Run()
		if err := shared.Stop(); err != nil {
			panic(err)
		}
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		return code
	}()
	os.Exit(code)
}
