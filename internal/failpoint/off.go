//go:build !failpoints

package failpoint

// Enabled says whether this binary was built with failpoints.
const Enabled = false

// Hit does nothing: this binary was built without failpoints.
func Hit(string) {}

// HitKey does nothing: this binary was built without failpoints.
func HitKey(string, []byte) {}

// Beside does nothing: this binary was built without failpoints.
func Beside(string) {}
