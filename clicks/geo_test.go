package clicks

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/stretchr/testify/require"
)

func TestGeoCountryBuiltIn(t *testing.T) {
	g, err := OpenGeo("")
	require.NoError(t, err)
	require.NoError(t, g.db.Verify())
	require.Regexp(t, `^[A-Za-z0-9-]+Country/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`, g.Build())
	for _, c := range []struct{ addr, want, why string }{
		{"8.8.8.8", "US", "Google"},
		{"193.99.144.80", "DE", "heise"},
		{"144.76.0.1", "DE", "Hetzner"},
		{"81.2.69.142", "GB", ""},
		{"133.11.93.0", "JP", "University of Tokyo"},
		{"200.160.2.3", "BR", "registro.br"},
		{"::ffff:8.8.8.8", "US", "4-in-6 mapped"},
		{"2001:4860:4860::8888", "US", "Google, v6"},
		{"2a01:4f8::1", "DE", "Hetzner, v6"},
		{"2a01:4f8::1%eth0", "DE", "zone is ignored"},
		{"10.0.0.1", "ZZ", "private"},
		{"172.16.3.4", "ZZ", "private"},
		{"192.168.1.1", "ZZ", "private"},
		{"::ffff:10.0.0.1", "ZZ", "private, mapped"},
		{"fd00::1", "ZZ", "private, v6"},
		{"127.0.0.1", "ZZ", "loopback"},
		{"::1", "ZZ", "loopback, v6"},
		{"0.0.0.0", "ZZ", "unspecified"},
		{"::", "ZZ", "unspecified, v6"},
		{"169.254.1.1", "ZZ", "link-local"},
		{"fe80::1", "ZZ", "link-local, v6"},
		{"224.0.0.1", "ZZ", "multicast"},
		{"255.255.255.255", "ZZ", "broadcast"},
		{"100.64.0.1", "ZZ", "carrier-grade NAT"},
		{"192.0.2.1", "ZZ", "documentation"},
		{"198.51.100.7", "ZZ", "documentation"},
		{"203.0.113.5", "ZZ", "documentation"},
		{"2001:db8::1", "ZZ", "documentation, v6"},
		{"198.18.0.1", "ZZ", "benchmarking"},
		{"240.0.0.1", "ZZ", "reserved"},
	} {
		require.Equal(t, c.want, g.Country(netip.MustParseAddr(c.addr)), "%s (%s)", c.addr, c.why)
	}
	require.Equal(t, NoCountry, g.Country(netip.Addr{}), "no address at all")
}

// Whatever the slots remember, the answer is that of a database without them.
func TestGeoCacheAnswersAsTheDatabase(t *testing.T) {
	g, err := OpenGeo("")
	require.NoError(t, err)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	for w := range uint64(4) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, w))
			for range 50_000 {
				a := randomAddr(r)
				var rec geoRecord
				want := NoCountry
				if a.IsGlobalUnicast() && !a.IsPrivate() {
					if err := g.db.Lookup(a).Decode(&rec); err != nil {
						t.Error(err)
						return
					}
					if rec.Country.ISOCode != "" {
						want = rec.Country.ISOCode
					}
				}
				if got := g.Country(a); got != want {
					t.Errorf("%s: %s, want %s", a, got, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

// What is kept of a prefix is not said of a part of it that has an answer of its own, nor of another prefix that falls into the same slot.
func TestGeoKeepsPrefixes(t *testing.T) {
	g, err := openGeo("a test's", buildGeo(t, "GeoLite2-Country", 1, map[string]string{
		"8.8.8.0/25": "DE", "8.8.8.128/25": "FR", "9.0.0.0/8": "US", "9.1.2.3/32": "GB", "73.0.0.0/8": "BR", "11.0.0.0/24": "",
	}), false)
	require.NoError(t, err)
	for range 3 {
		for _, c := range []struct{ addr, want string }{
			{"8.8.8.1", "DE"}, {"8.8.8.200", "FR"}, {"8.8.8.2", "DE"}, {"9.1.2.4", "US"}, {"9.1.2.3", "GB"}, {"9.1.2.5", "US"}, {"9.8.8.1", "US"}, {"9.8.8.2", "US"},
			{"73.8.8.1", "BR"}, {"9.8.8.1", "US"}, {"11.0.0.1", "ZZ"}, {"11.0.0.2", "ZZ"}, {"12.0.0.1", "ZZ"}, {"::ffff:73.8.8.9", "BR"}, {"2001:4860::1", "ZZ"},
		} {
			require.Equal(t, c.want, g.Country(netip.MustParseAddr(c.addr)), c.addr)
		}
	}
	kept := 0
	for i := range g.near.slots {
		if g.near.slots[i].Load() != 0 {
			kept++
		}
	}
	require.Equal(t, 2, kept, "9.8.8.0/24 and 73.8.8.0/24 fall into one slot, 11.0.0.0/24 and 12.0.0.0/24 into another")
}

func TestOpenGeoRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	good := buildGeo(t, "GeoLite2-Country", 1, map[string]string{"8.8.8.0/24": "US"})
	damaged := bytes.Clone(builtInGeo)
	for i := 1000; i < 1200; i++ {
		damaged[i] ^= 0xFF
	}
	for _, c := range []struct{ name, path, want string }{
		{"absent", filepath.Join(dir, "absent.mmdb"), "no such file"},
		{"directory", dir, "is a directory"},
		{"empty", write("empty.mmdb", nil), "is empty"},
		{"text", write("text.mmdb", []byte("network,country\n")), "not a MaxMind database"},
		{"cut off", write("cut.mmdb", good[:len(good)-40]), "cut.mmdb"},
		{"wrong type", write("asn.mmdb", buildGeo(t, "GeoLite2-ASN", 1, nil)), "must be a Country (or City) database"},
		{"flat form", write("flat.mmdb", buildGeo(t, "country ipvAll", 1, nil)), `has type "country ipvAll"`},
		{"damaged", write("damaged.mmdb", damaged), "is damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := OpenGeo(c.path)
			require.ErrorContains(t, err, c.path)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestGeoReplacedDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "country.mmdb")
	addr := netip.MustParseAddr("8.8.8.8")
	require.NoError(t, os.WriteFile(path, buildGeo(t, "GeoLite2-Country", 1_700_000_000, map[string]string{"8.8.8.0/24": "DE"}), 0o600))
	before, err := OpenGeo(path)
	require.NoError(t, err)
	require.Equal(t, "GeoLite2-Country/2023-11-14T22:13:20Z", before.Build())
	require.Equal(t, "DE", before.Country(addr))

	require.NoError(t, os.WriteFile(path, buildGeo(t, "GeoIP2-City", 1_800_000_000, map[string]string{"8.8.8.0/24": "FR", "9.0.0.0/8": "france", "11.0.0.0/8": ""}), 0o600))
	require.Equal(t, "DE", before.Country(addr), "an open database does not change under a worker")
	after, err := OpenGeo(path)
	require.NoError(t, err)
	require.NotEqual(t, before.Build(), after.Build())
	require.Equal(t, "FR", after.Country(addr))
	require.Equal(t, NoCountry, after.Country(netip.MustParseAddr("9.9.9.9")), "no alpha-2 code")
	require.Equal(t, NoCountry, after.Country(netip.MustParseAddr("11.1.1.1")), "a record without a country")
	require.Equal(t, NoCountry, after.Country(netip.MustParseAddr("2001:4860::1")), "absent")
}

// buildGeo makes a small database: network to iso_code, "" for a record that has none.
func buildGeo(t *testing.T, databaseType string, epoch int64, networks map[string]string) []byte {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: databaseType, BuildEpoch: epoch, Description: map[string]string{"en": "a test's"}, Languages: []string{"en"}})
	require.NoError(t, err)
	for cidr, code := range networks {
		_, n, err := net.ParseCIDR(cidr)
		require.NoError(t, err)
		rec := mmdbtype.Map{"registered_country": mmdbtype.Map{"iso_code": mmdbtype.String("US")}}
		if code != "" {
			rec["country"] = mmdbtype.Map{"iso_code": mmdbtype.String(code), "geoname_id": mmdbtype.Uint32(7)}
		}
		require.NoError(t, tree.Insert(n, rec))
	}
	var b bytes.Buffer
	_, err = tree.WriteTo(&b)
	require.NoError(t, err)
	return b.Bytes()
}

func randomAddr(r *rand.Rand) netip.Addr {
	if r.IntN(3) > 0 {
		v := r.Uint32()
		return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	}
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	b[0], b[1] = 0x2a, b[1]&0x1f // where most of Europe's v6 is
	return netip.AddrFrom16(b)
}

func BenchmarkGeoCountry(b *testing.B) {
	g, err := OpenGeo("")
	require.NoError(b, err)
	r := rand.New(rand.NewPCG(1, 2))
	addrs := make([]netip.Addr, 4096)
	for i := range addrs {
		addrs[i] = randomAddr(r)
	}
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			g.Country(addrs[i%len(addrs)])
		}
	})
	b.Run("walked", func(b *testing.B) { // without what is kept of prefixes
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			g.answer(g.db.Lookup(addrs[i%len(addrs)]))
		}
	})
	b.Run("decoded", func(b *testing.B) { // and without the slots
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if res := g.db.Lookup(addrs[i%len(addrs)]); res.Found() {
				var rec geoRecord
				_ = res.Decode(&rec)
			}
		}
	})
}

func BenchmarkOpenGeo(b *testing.B) {
	path := filepath.Join(b.TempDir(), "country.mmdb")
	require.NoError(b, os.WriteFile(path, builtInGeo, 0o600))
	for b.Loop() {
		_, err := OpenGeo(path)
		require.NoError(b, err)
	}
}
