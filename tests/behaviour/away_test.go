//go:build !e2e

package behaviour

import "time"

// away is how long the registry is away, in each of four ways. Under the tag e2e it is a minute in all.
const away = 2 * time.Second
