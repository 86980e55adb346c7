//go:build mutants

package guard

var out Guard

// Off says whether the guard is taken out.
func Off(g Guard) bool { return g == out }

// TakeOut takes one guard out, and puts the one before back in; "" takes none. Not while anything runs.
func TakeOut(g Guard) { out = g }
