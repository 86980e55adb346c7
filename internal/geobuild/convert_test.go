package main

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/oschwald/maxminddb-golang/v2"
	"github.com/stretchr/testify/require"
)

// flat is a database in the form of ip-location-db, reserved ranges included as there.
func flat(t *testing.T, field string, networks map[string]string) string {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "country ipvAll", BuildEpoch: 1_700_000_000, IncludeReservedNetworks: true, RecordSize: 24})
	require.NoError(t, err)
	for cidr, code := range networks {
		_, n, err := net.ParseCIDR(cidr)
		require.NoError(t, err)
		require.NoError(t, tree.Insert(n, mmdbtype.Map{mmdbtype.String(field): mmdbtype.String(code)}))
	}
	var b bytes.Buffer
	_, err = tree.WriteTo(&b)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "flat.mmdb")
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

func TestConvert(t *testing.T) {
	in := flat(t, "country_code", map[string]string{
		"8.8.8.0/24": "US", "9.0.0.0/8": "EU", "11.0.0.0/8": "AN", "203.0.113.0/24": "AU", "10.0.0.0/8": "US", "2001:db8::/32": "JP",
		"5.0.0.0/29": "DE", "5.0.0.8/30": "FR", "5.0.0.12/32": "FR", // one /28: DE has the larger share
		"2a00:1::/32": "NL", "2a00:2:0:1::/64": "PL", "2a00:2:0:2::/64": "PL", "2a00:2:0:4::/64": "CZ", "2a00:3:0:1::/64": "SE", "2a00:3:0:3::/64": "NO",
	})
	out := filepath.Join(t.TempDir(), "country.mmdb")
	var said bytes.Buffer
	require.NoError(t, run([]string{"-in", in, "-out", out}, &said))
	require.Contains(t, said.String(), "data of 2023-11-14T22:13:20Z")
	first, err := os.ReadFile(out)
	require.NoError(t, err)
	require.NoError(t, run([]string{"-in", in, "-out", out}, &said))
	second, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, first, second, "the same input gives the same bytes")

	db, err := maxminddb.OpenBytes(first)
	require.NoError(t, err)
	require.NoError(t, db.Verify())
	require.Equal(t, databaseType, db.Metadata.DatabaseType)
	for addr, want := range map[string]string{
		"8.8.8.8": "US", "9.9.9.9": "", "11.1.1.1": "", "203.0.113.1": "", "10.0.0.1": "", "2001:db8::1": "",
		"5.0.0.1": "DE", "5.0.0.9": "DE", "5.0.0.15": "DE", "5.0.0.16": "",
		"2a00:1::5": "NL", "2a00:2::": "PL", "2a00:2:0:4::1": "PL", "2a00:2:1::": "", "2a00:3:0:1::1": "NO",
	} {
		var got string
		require.NoError(t, db.Lookup(netip.MustParseAddr(addr)).DecodePath(&got, "country", "iso_code"))
		require.Equal(t, want, got, addr)
	}
}

func TestRunRefuses(t *testing.T) {
	out := filepath.Join(t.TempDir(), "country.mmdb")
	err := run([]string{"-in", flat(t, "asn", map[string]string{"8.8.8.0/24": "US"}), "-out", out}, &bytes.Buffer{})
	require.ErrorContains(t, err, "no network has a country_code")
	require.ErrorContains(t, run([]string{"-in", filepath.Join(t.TempDir(), "absent"), "-out", out}, &bytes.Buffer{}), "absent")
	require.NoFileExists(t, out)
}
