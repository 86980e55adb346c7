// Package behaviour holds the worker to its promises: real worker processes on a stack, killed, stopped, held and crowded, and the
// audit's verdict after each.
package behaviour

import (
	"os"
	"testing"

	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// shared is what all tests of this package use: the program, built with failpoints, and a stack. Each test has its own database, topics and group.
var shared teststack.Package

func TestMain(m *testing.M) { os.Exit(shared.Run(m, teststack.Start, "failpoints")) }
