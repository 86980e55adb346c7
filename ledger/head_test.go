package ledger

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func aHead() Head {
	s := Stream{SourceID: 1, Topic: "user_clicks", TopicID: "id", Group: "g<&>"}
	e := entry()
	e.CommittedAt = time.UnixMicro(1_700_000_000_100_000)
	return s.Head(&e, []byte{0xab, 0xcd})
}

// The form, too, is for ever: it is what was signed.
func TestHeadForm(t *testing.T) {
	h := aHead()
	want := `{"v":1,"source_id":1,"topic":"user_clicks","topic_id":"id","group":"g<&>","partition":2,"seq":3,"hash":"abcd","to":5,"at":"2023-11-14T22:13:20.100000Z","kind":"capture"}`
	require.Equal(t, want, string(h.Encode()))
	require.Equal(t, "g<&>/user_clicks/2", string(h.RecordKey()))
	h.Replaces = &Replaced{Seq: 9, Hash: Hex{1}}
	h.Sig, h.Key = []byte{1, 2}, "k"
	require.Equal(t, strings.TrimSuffix(want, "}")+`,"replaces":{"seq":9,"hash":"01"},"key":"k","sig":"AQI="}`, string(h.Encode()))
	got, err := ParseHead(h.Encode())
	require.NoError(t, err)
	require.Equal(t, h, got)
	for _, bad := range []string{
		"", "null", "[]", `{"v":2}`, want + " ", strings.Replace(want, `"v":1,`, `"v":1,"x":1,`, 1), strings.Replace(want, "abcd", "ABCD", 1),
		strings.Replace(want, "abcd", "xy", 1), strings.Replace(want, `"to":5`, `"to":5.0`, 1),
	} {
		_, err := ParseHead([]byte(bad))
		require.Error(t, err, bad)
	}
}

// A key made here signs what its public half verifies, and nothing that was changed since.
func TestSignatures(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	public, err := GenerateKey(path)
	require.NoError(t, err)
	_, err = GenerateKey(path)
	require.ErrorIs(t, err, os.ErrExist)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	signer, err := LoadSigner(path)
	require.NoError(t, err)
	loaded, err := LoadPublic(path + ".pub")
	require.NoError(t, err)
	require.Equal(t, public, loaded)
	_, err = LoadPublic(path)
	require.Error(t, err)
	_, err = LoadSigner(path + ".pub")
	require.Error(t, err)
	nobody, err := LoadSigner("")
	require.NoError(t, err)
	other, _, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)

	h := aHead()
	nobody.Sign(&h)
	require.ErrorContains(t, h.Signature([]ed25519.PublicKey{public}), "is not signed")
	signer.Sign(&h)
	require.NoError(t, h.Signature([]ed25519.PublicKey{other, public}))
	require.ErrorContains(t, h.Signature([]ed25519.PublicKey{other}), "none of those given")
	back, err := ParseHead(h.Encode())
	require.NoError(t, err)
	require.NoError(t, back.Signature([]ed25519.PublicKey{public}))
	for _, change := range []func(*Head){
		func(h *Head) { h.Seq++ }, func(h *Head) { h.Hash = Hex{1} }, func(h *Head) { h.Replaces = &Replaced{} }, func(h *Head) { h.Sig[0]++ },
		func(h *Head) { h.Group = "x" }, func(h *Head) { h.At = "" },
	} {
		c := h
		c.Sig = append([]byte{}, h.Sig...)
		change(&c)
		require.ErrorContains(t, c.Signature([]ed25519.PublicKey{public}), "is not what key")
	}
}

// chained makes n entries.
func chained(n int64) (es []Entry, hashes [][]byte) {
	var prev []byte
	for seq := int64(1); seq <= n; seq++ {
		e := entry()
		e.Seq, e.From, e.To, e.PrevHash = seq, seq, seq+1, prev
		prev = e.Hash()
		es, hashes = append(es, e), append(hashes, prev)
	}
	return es, hashes
}

func verified(es []Entry, hashes [][]byte) (*Chain, []string) {
	var c Chain
	var wrong []string
	for i := range es {
		wrong = append(wrong, c.Add(&es[i], hashes[i])...)
	}
	return &c, wrong
}

func TestVerify(t *testing.T) {
	es, hashes := chained(5)
	c, wrong := verified(es, hashes)
	require.Empty(t, wrong)
	var s Stream
	var published []Head
	for i := range es {
		published = append(published, s.Head(&es[i], hashes[i]))
	}
	require.Empty(t, c.Heads(published, nil))

	es[2].Why = "another"
	_, wrong = verified(es, hashes)
	require.Len(t, wrong, 1)
	require.Contains(t, wrong[0], "seq 3: its fields do not make its hash")
	_, wrong = verified(append(es[:1:1], es[3:]...), append(hashes[:1:1], hashes[3:]...))
	require.Contains(t, strings.Join(wrong, "\n"), "comes after seq 1")

	for i := 2; i < 5; i++ { // a rewritten chain holds by itself, and only the heads tell
		es[i].PrevHash, hashes[i] = hashes[i-1], nil
		hashes[i] = es[i].Hash()
	}
	c, wrong = verified(es, hashes)
	require.Empty(t, wrong)
	wrong = c.Heads(published, nil)
	require.Len(t, wrong, 3)
	require.Contains(t, wrong[0], "was rewritten")
	healed := s.Head(&es[2], hashes[2])
	healed.Replaces = &Replaced{Seq: 5, Hash: published[4].Hash}
	require.Len(t, c.Heads(append(published, healed), nil), 3, "a capture replaces nothing")
	healed.Kind = Heal
	require.Empty(t, c.Heads(append(published, healed), nil), "a heal says what it replaces")
	healed.Hash = Hex{1}
	require.Len(t, c.Heads(append(published, healed), nil), 4, "and must be in the ledger itself")

	c, _ = verified(es[:2], hashes[:2]) // a removed tail
	wrong = c.Heads(published, nil)
	require.Len(t, wrong, 3)
	require.Contains(t, wrong[0], "beyond the ledger")
}
