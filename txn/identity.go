package txn

import (
	"errors"
	"sync"

	"github.com/exactly-pipeline/exactly/internal/guard"
)

// ErrStoreChanged says that a new session met another database, or another timeline of it, than the sessions before.
var ErrStoreChanged = errors.New("postgres is not the one it was before (system identifier or timeline differ): a failover, or a restored backup")

// Identity is which database the sessions of a store have met: guard 11.
type Identity struct {
	mu      sync.Mutex
	id      string // system identifier and timeline all sessions must have
	changed bool   // another was met, and no capture has told yet: none may succeed until one has
}

// Meet compares a new session's database with that of the sessions before. ErrStoreChanged, with the one before, if it is another: from
// then on sessions are measured by this one, and the next capture has to tell the engine, whoever met it, because only a failed capture
// drops what is in memory.
func (i *Identity) Meet(id string) (before string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	before = i.id
	i.id = id
	if before == "" || before == id || guard.Off(guard.SameStore) {
		return before, nil
	}
	i.changed = true
	return before, ErrStoreChanged
}

// Changed says whether another database was met, and no capture has told yet. A session is asked for this once it has met its own: with
// several of them only one finds the change, and what the others write would rest on what is remembered of the database before.
func (i *Identity) Changed() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.changed
}

// Tell says whether a capture has to tell that the database changed, once.
func (i *Identity) Tell() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	changed := i.changed
	i.changed = false
	return changed
}
