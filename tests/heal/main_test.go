// Package heal holds `exactly heal` to its promises: stores that are set back in time, emptied or recreated under real workers, healed, killed in
// the middle of it, and compared with what they were and with a twin that nothing happened to.
package heal

import (
	"os"
	"testing"

	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// shared is what all tests of this package use: the program, built with failpoints, and a stack. Each test has its own database, topics and group.
var shared teststack.Package

func TestMain(m *testing.M) { os.Exit(shared.Run(m, teststack.Start, "failpoints")) }
