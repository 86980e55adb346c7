package failpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Without the build tag nothing happens, whatever is armed; with it, a point acts at its Nth hit, once, and leaves its mark.
func TestBuilds(t *testing.T) {
	if os.Getenv("FAILPOINT_CHILD") != "" {
		for range 3 {
			Hit(CaptureBefore)
			HitKey(HandleRecord, []byte("7"))
			HitKey(HandleRecord, []byte("8"))
		}
		return
	}
	for _, name := range Names() {
		require.Equal(t, 1, strings.Count(name, "/"), name)
	}
	for _, c := range []struct {
		tags, arm      string
		killed, marked bool
	}{
		{"", "capture/before=kill", false, false},
		{"failpoints", "capture/before=kill@3", true, true},
		{"failpoints", "capture/before=kill@4", false, false},
		{"failpoints", "capture/copied=kill", false, false},
		{"failpoints", "", false, false},
		{"failpoints", "handle/record=kill:77", false, false},
		{"failpoints", "handle/record=kill:7@4", false, false},
		{"failpoints", "handle/record=kill:7", true, false},
		{"failpoints", "handle/record=panic:8,handle/record=kill:77", true, false},
		{"failpoints", "handle/record=panic:7@4", false, false},
		{"failpoints", "capture/before=panic", true, false},
		{"failpoints", "handle/record=kill", true, false},
		{"failpoints", "capture/before=kill:7", true, false},
		{"failpoints", "no/such=kill", true, false},
		{"failpoints", "capture/before=kill@0", true, false},
		{"failpoints", "capture/before", true, false},
	} {
		dir := t.TempDir()
		cmd := exec.Command("go", "test", "-count=1", "-tags", c.tags, "-run", "^TestBuilds$", ".")
		cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", "EXACTLY_FAILPOINT="+c.arm, "EXACTLY_FAILPOINT_DIR="+dir)
		out, err := cmd.CombinedOutput()
		require.Equal(t, c.killed, err != nil, "%v: %s", c, out)
		_, err = os.Stat(filepath.Join(dir, "capture-before.hit"))
		require.Equal(t, c.marked, err == nil, "%v: %s", c, out)
	}
}
