package rig

import (
	"bytes"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
)

// tap is what stands first in every proxy, in both directions. It counts what passes, finds the two moments at which an answer decides about a
// transaction (Kafka's EndTxn request, Postgres' answer to COMMIT), and can keep either from arriving.
type tap struct {
	up, down atomic.Int64 // bytes
	open     atomic.Int64 // connections
	closed   atomic.Int64 // connections, so far

	mu    sync.Mutex
	mode  mode
	moved chan struct{} // closed when the moment has come
	let   chan struct{} // closed when what is held may go on
	mute  bool          // answers are swallowed
}

// mode is what a tap waits for.
type mode int

const (
	pass       mode = iota
	loseEndTxn      // let the EndTxn through and swallow every answer from then on
	holdEndTxn      // keep the EndTxn, and what follows it on that connection, until it is let go
	loseCommit      // swallow Postgres' answer to a capture's COMMIT, and every one from then on
)

// expect arms the tap for one moment; the channel is closed when it has come.
func (t *tap) expect(m mode) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mode, t.moved, t.let, t.mute = m, make(chan struct{}), make(chan struct{}), false
	return t.moved
}

// letGo ends what expect began. It says whether the moment had come.
func (t *tap) letGo() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mode, t.mute = pass, false
	if t.let != nil {
		close(t.let)
		t.let = nil
	}
}

func (t *tap) muted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mute
}

// endTxn is told of an EndTxn request on its way to the broker. What it returns, if anything, has to be waited for first.
func (t *tap) endTxn() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.mode {
	case loseEndTxn:
		t.mode, t.mute = pass, true
		close(t.moved)
	case holdEndTxn:
		t.mode = pass
		close(t.moved)
		return t.let
	}
	return nil
}

// committed is told of an answer that says that a capture is committed.
func (t *tap) committed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mode == loseCommit {
		t.mode, t.mute = pass, true
		close(t.moved)
	}
}

var (
	tapsMu sync.Mutex
	taps   = map[string]*tap{} // by proxy: toxics are made by name
)

// Tap is the toxic. Its attributes name the proxy it stands in.
type Tap struct {
	Proxy string `json:"proxy"`
	Down  bool   `json:"down"`
}

func init() { toxics.Register("tap", new(Tap)) }

// Pipe implements toxics.Toxic. It is never taken out, but another toxic behind it may be put in or out, for which it is interrupted
// between two chunks.
func (x *Tap) Pipe(stub *toxics.ToxicStub) {
	tapsMu.Lock()
	t := taps[x.Proxy]
	tapsMu.Unlock()
	state := stub.State.(*frames)
	if !x.Down && !state.counted {
		state.counted = true
		t.open.Add(1)
	}
	for {
		select {
		case <-stub.Interrupt:
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				if !x.Down {
					t.open.Add(-1)
					t.closed.Add(1)
				}
				stub.Close()
				return
			}
			if x.answer(t, chunk) {
				continue
			}
			if !x.Down {
				t.up.Add(int64(len(chunk.Data)))
				if state.endTxn(chunk.Data) {
					if let := t.endTxn(); let != nil {
						<-let
					}
				}
			}
			stub.Output <- chunk
		}
	}
}

// answer deals with what comes from the server, and says whether it is swallowed.
func (x *Tap) answer(t *tap, chunk *stream.StreamChunk) bool {
	if !x.Down {
		return false
	}
	t.down.Add(int64(len(chunk.Data)))
	// Command tags: a ledger entry's, then the commit's, in one answer to one pipeline.
	if i := bytes.Index(chunk.Data, []byte("INSERT 0 ")); i >= 0 && bytes.Contains(chunk.Data[i:], []byte("COMMIT\x00")) {
		t.committed()
	}
	return t.muted()
}

// NewState implements toxics.StatefulToxic.
func (x *Tap) NewState() interface{} { return &frames{} }

// frames finds Kafka's requests in a stream of bytes: a length of four bytes, then the request, which begins with its key.
type frames struct {
	counted bool
	head    []byte // the first six bytes of the request under way, as far as they are there
	left    int    // bytes of it still to come, once the head is complete
	lost    bool   // this is not Kafka
}

const endTxnKey = 26

// endTxn says whether an EndTxn request begins in b.
func (f *frames) endTxn(b []byte) bool {
	found := false
	for len(b) > 0 && !f.lost {
		if f.left > 0 {
			n := min(f.left, len(b))
			f.left -= n
			b = b[n:]
			continue
		}
		n := min(6-len(f.head), len(b))
		f.head = append(f.head, b[:n]...)
		b = b[n:]
		if len(f.head) < 6 {
			break
		}
		size, key := binary.BigEndian.Uint32(f.head), binary.BigEndian.Uint16(f.head[4:])
		f.head = f.head[:0]
		if size < 8 || size > 100<<20 || key > 100 {
			f.lost = true
			break
		}
		f.left = int(size) - 2
		found = found || key == endTxnKey
	}
	return found
}
