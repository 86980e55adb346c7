package clicks

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIP(t *testing.T) {
	of := func(mode, addr string) string {
		k, err := NewIP(mode, []byte("0123456789abcdef"))
		require.NoError(t, err)
		return k.Of(netip.MustParseAddr(addr).Unmap()).String()
	}
	for _, c := range []struct{ mode, in, out string }{
		{"keep", "203.0.113.77", "203.0.113.77"}, {"keep", "2001:db8:1:2:3::4", "2001:db8:1:2:3::4"},
		{"truncate", "203.0.113.77", "203.0.113.0"}, {"truncate", "::ffff:203.0.113.77", "203.0.113.0"}, {"truncate", "2001:db8:1:2:3::4", "2001:db8:1::"},
	} {
		require.Equal(t, c.out, of(c.mode, c.in), "%s %s", c.mode, c.in)
	}

	h := of("hash", "203.0.113.77")
	mac := hmac.New(sha256.New, []byte("0123456789abcdef"))
	mac.Write([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 77}) // as doc/security.md says
	want := append([]byte{0xfd, 'e', 'x', 'a', 'c', 't'}, mac.Sum(nil)[:10]...)
	a, _ := netip.AddrFromSlice(want)
	require.Equal(t, a.String(), h)
	require.Equal(t, h, of("hash", "::ffff:203.0.113.77"))
	require.NotEqual(t, h, of("hash", "203.0.113.78"))
	require.NotEqual(t, h, of("hash", "::cb00:714d"), "the IPv6 address of the same last bytes")
	require.True(t, HashedPrefix.Contains(netip.MustParseAddr(h)))
	other, err := NewIP("hash", []byte("another key, as long"))
	require.NoError(t, err)
	require.NotEqual(t, h, other.Of(netip.MustParseAddr("203.0.113.77")).String())

	_, err = NewIP("hash", []byte("short"))
	require.ErrorContains(t, err, "16 or more")
	_, err = NewIP("drop", nil)
	require.Error(t, err)
}
