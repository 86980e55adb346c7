//go:build e2e

package behaviour

import "time"

const away = 15 * time.Second
