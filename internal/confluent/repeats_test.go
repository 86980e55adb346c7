package confluent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRepeats: what the client says of a transaction, and whether anything in it may have been sent twice. TestRepeatedEndTxn has the client
// say it.
func TestRepeats(t *testing.T) {
	for _, c := range []struct {
		name    string
		tags    []string
		offsets time.Duration
		want    bool
	}{
		{"one answer", []string{"TXNAPI", tagEndTxn, tagComplete}, 5 * time.Millisecond, false},
		{"nothing to end", []string{tagComplete}, 0, false},
		{"sent again", []string{tagEndTxn, tagEndTxn, tagComplete}, 0, true},
		{"offsets may have been sent again", []string{tagFail, tagEndTxn, tagComplete}, 500 * time.Millisecond, true},
		{"offsets are slow", []string{tagEndTxn, tagComplete}, 500 * time.Millisecond, false},
		{"a connection failed that carried nothing", []string{tagFail, tagEndTxn, tagComplete}, 5 * time.Millisecond, false},
		{"the log says nothing", nil, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRepeats()
				r.told(tagEndTxn) // of the transaction before
				r.begin()
				r.sentOffsets(c.offsets)
				go func() {
					for _, tag := range c.tags {
						time.Sleep(lineWithin / 10)
						r.told(tag)
					}
				}()
				require.Equal(t, c.want, r.any())
				r.begin()
				r.told(tagEndTxn)
				r.told(tagComplete)
				require.False(t, r.any(), "the next one")
			})
		})
	}
}
