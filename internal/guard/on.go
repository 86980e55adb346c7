//go:build mutants

package guard

var out = map[Guard]bool{}

// Off says whether the guard is taken out.
func Off(g Guard) bool { return out[g] }

// TakeOut takes these guards out, and puts all others back in. Not while anything runs.
func TakeOut(gs ...Guard) {
	out = map[Guard]bool{}
	for _, g := range gs {
		out[g] = true
	}
}
