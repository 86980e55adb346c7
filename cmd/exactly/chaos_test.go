package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Nobody kills workers by mistake.
func TestChaosAsksFirst(t *testing.T) {
	for _, args := range [][]string{{"chaos"}, {"chaos", "--i-understand", "--kills", "0", "--zombies", "0"}, {"chaos", "--i-understand", "--clicks", "-1"}} {
		require.Equal(t, 2, run(args), args)
	}
}
