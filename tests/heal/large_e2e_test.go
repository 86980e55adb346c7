//go:build e2e

package heal

import (
	"testing"
	"time"
)

// many is how many clicks a store loses here.
const many = 200_000

func init() { patience = 10 * time.Minute }

// As TestPostgresRestored, with many clicks lost.
func TestPostgresRestoredLarge(t *testing.T) { restored(t, many) }

// As TestOutputsRecreated, likewise.
func TestOutputsRecreatedLarge(t *testing.T) { recreated(t, many) }
