package schema

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A registry that does not answer holds a decoder up for its patience only, and once: what is asked for comes along meanwhile.
func TestDecodePatience(t *testing.T) {
	fake, reg := setup(t)
	seed(fake, 8, ClickAvsc)
	seed(fake, 9, ClickAvsc)
	want := sample().Click
	value := func(id int) []byte { return NewClickEncoder(id).Append(nil, &want) }
	d := NewClickDecoder(reg)
	var got Click
	require.NoError(t, d.Decode(t.Context(), value(1), &got))
	d.Patience(20 * time.Millisecond)

	release := make(chan struct{})
	n := requests(fake, "/schemas/ids/8")
	fake.Intercept(func(http.ResponseWriter, *http.Request) bool { <-release; return false })
	err := d.Decode(t.Context(), value(8), &got)
	requireClass(t, err, "")
	require.ErrorIs(t, err, errSlow)
	d.Patience(time.Hour) // would hang
	requireClass(t, d.Decode(t.Context(), value(8), &got), "")
	require.NoError(t, d.Decode(t.Context(), value(1), &got), "what is known is read")
	close(release)
	require.Eventually(t, func() bool { return d.Decode(t.Context(), value(8), &got) == nil }, 10*time.Second, time.Millisecond)
	require.Equal(t, want, got)
	require.EqualValues(t, 1, n.Load(), "fetched once, though nobody waited")
}

func TestSlowSchemasAreBounded(t *testing.T) {
	fake, reg := setup(t)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	fake.Intercept(func(http.ResponseWriter, *http.Request) bool { <-release; return false })
	d := NewClickDecoder(reg)
	d.Patience(time.Millisecond)
	d.slow = map[int]time.Time{}
	for id := range maxUnknown {
		d.slow[1000+id] = time.Now().Add(time.Hour)
	}
	want := sample().Click
	requireClass(t, d.Decode(t.Context(), NewClickEncoder(999).Append(nil, &want), new(Click)), "")
	require.Len(t, d.slow, 1)
}
