package clicks

import (
	_ "embed"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"
)

//go:embed geo/country.mmdb
var builtInGeo []byte

// NoCountry is the answer where there is none: a private, reserved or unknown address, or a record without a country.
const NoCountry = "ZZ"

// Geo answers which country an address is in. It is safe for concurrent use, and holds the whole database in memory: a file that
// is replaced or damaged afterwards changes nothing until the next OpenGeo.
type Geo struct {
	db    *maxminddb.Reader
	build string
	// A database has millions of networks and a few hundred records, so the answer is remembered by record: half the cost of a look-up
	// is decoding. A slot is overwritten by the next record that falls into it, hence bounded; City files with more records just hit less.
	slots [1024]atomic.Pointer[geoAnswer]
	near  near

	found, none atomic.Int64
}

type geoAnswer struct {
	offset  uintptr
	country string
}

// OpenGeo opens a database of GeoLite2-Country form, or City or Enterprise, which contain it; "" is the one built in.
// The file is read whole and verified. Errors name the path and what is wrong with it.
func OpenGeo(path string) (*Geo, error) {
	if path == "" {
		// Not verified: it is part of the binary, and a test verifies it.
		return openGeo("built-in geo database", builtInGeo, false)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("geo database: %w", err)
	}
	return openGeo("geo database "+path, data, true)
}

func openGeo(name string, data []byte, verify bool) (*Geo, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("%s: is empty", name)
	}
	db, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("%s: not a MaxMind database (.mmdb): %w", name, err)
	}
	m := db.Metadata
	if !strings.Contains(m.DatabaseType, "Country") && !strings.Contains(m.DatabaseType, "City") && !strings.Contains(m.DatabaseType, "Enterprise") {
		return nil, fmt.Errorf("%s: has type %q; must be a Country (or City) database in the form of GeoLite2-Country", name, m.DatabaseType)
	}
	if verify {
		// A damaged tree would otherwise show as wrong or missing countries in rows that can't be taken back.
		if err := db.Verify(); err != nil {
			return nil, fmt.Errorf("%s: is damaged: %w", name, err)
		}
	}
	build := strings.Join(strings.Fields(m.DatabaseType), "-") + "/" + m.BuildTime().UTC().Format(time.RFC3339)
	return &Geo{db: db, build: build}, nil
}

// Build names the database's type and build time, such as GeoLite2-Country/2026-01-31T10:00:00Z: stable, short, without spaces.
func (g *Geo) Build() string { return g.build }

// Built is when the database was built.
func (g *Geo) Built() time.Time { return g.db.Metadata.BuildTime() }

// geoRecord is the one field that is read. Not registered_country: that is where the holder of the network is, not its user.
type geoRecord struct {
	Country struct {
		ISOCode string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
}

// Lookups is how often Country had an answer, and none.
func (g *Geo) Lookups() (found, none int64) { return g.found.Load(), g.none.Load() }

// Country is addr's ISO 3166-1 alpha-2 code in upper case, or NoCountry. A v4 address written as v6 (::ffff:a.b.c.d) is looked up as v4.
// Private, loopback, link-local and multicast addresses have no country whatever the database says.
func (g *Geo) Country(addr netip.Addr) string {
	country := g.country(addr)
	if country == NoCountry {
		g.none.Add(1)
	} else {
		g.found.Add(1)
	}
	return country
}

func (g *Geo) country(addr netip.Addr) string {
	addr = addr.Unmap()
	if !addr.IsGlobalUnicast() || addr.IsPrivate() { // false for the zero Addr too
		return NoCountry
	}
	if addr.Is6() && g.db.Metadata.IPVersion == 4 {
		return NoCountry
	}
	if c := g.near.country(addr); c != "" {
		return c
	}
	res := g.db.Lookup(addr)
	country := g.answer(res)
	if addr.Is4() && res.Err() == nil && res.Prefix().Bits() <= nearBits {
		g.near.keep(addr, country)
	}
	return country
}

// answer is the country of a record.
func (g *Geo) answer(res maxminddb.Result) string {
	if !res.Found() {
		return NoCountry
	}
	slot := &g.slots[slotOf(res.Offset())]
	if a := slot.Load(); a != nil && a.offset == res.Offset() {
		return a.country
	}
	var rec geoRecord
	country := NoCountry
	if err := res.Decode(&rec); err == nil && isAlpha2(rec.Country.ISOCode) {
		country = rec.Country.ISOCode
	}
	slot.Store(&geoAnswer{res.Offset(), country})
	return country
}

// slotOf spreads offsets, which lie tens of bytes apart, over the slots (Fibonacci hashing).
func slotOf(offset uintptr) uint64 { return uint64(offset) * 0x9E3779B97F4A7C15 >> 54 }

// isAlpha2 keeps what is no code (a user's own database may hold anything) out of a char(2) column.
func isAlpha2(s string) bool {
	return len(s) == 2 && 'A' <= s[0] && s[0] <= 'Z' && 'A' <= s[1] && s[1] <= 'Z'
}
