//go:build !failpoints

package failpoint

// Enabled says whether this binary was built with failpoints.
const Enabled = false

// Hit does nothing: this binary was built without failpoints.
func Hit(string) {}

// Beside does nothing: this binary was built without failpoints.
func Beside(string) {}
