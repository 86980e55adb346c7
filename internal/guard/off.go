//go:build !mutants

package guard

// Off is false: all guards stand.
func Off(Guard) bool { return false }
