package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/oschwald/maxminddb-golang/v2"
)

// databaseType says what the file is: Country because that is its form, not GeoLite2 because MaxMind did not make it.
const databaseType = "Geo-Whois-ASN-Country"

// The longest prefixes that keep a country of their own. A /48 is what one site is given and the smallest IPv6 network that the
// Internet routes; sixteen IPv4 addresses are one rack. What is longer is a registry's paperwork, and a third of the file.
const (
	v4Bits = 28
	v6Bits = 48
)

type stats struct{ read, noCountry, reserved, merged int }

// share is how much of one network is said to be in a country: 1 is all of it.
type share struct {
	network netip.Prefix
	country string
	of      float64
}

// convert writes src's networks to w in GeoLite2-Country form.
func convert(src *maxminddb.Reader, w io.Writer) (stats, error) {
	var st stats
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		BuildEpoch:   int64(src.Metadata.BuildEpoch), // the data's own date: the same input gives the same bytes
		DatabaseType: databaseType,
		Description:  map[string]string{"en": "IP to country. Data by nro.net and the regional registries (CC BY 4.0), merged by ip-location-db"},
		Languages:    []string{"en"},
		IPVersion:    6,
		RecordSize:   24,
		// false: private, documentation and other reserved ranges are left out although some registry lists them under a country
		IncludeReservedNetworks: false,
	})
	if err != nil {
		return st, err
	}
	records := map[string]mmdbtype.DataType{}
	insert := func(p netip.Prefix, country string) error {
		rec, ok := records[country]
		if !ok {
			rec = mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(country)}}
			records[country] = rec
		}
		err := tree.Insert(&net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, rec)
		var reserved *mmdbwriter.ReservedNetworkError
		var alias *mmdbwriter.AliasedNetworkError
		if errors.As(err, &reserved) || errors.As(err, &alias) { // an alias (6to4, Teredo) answers as the IPv4 address inside it
			st.reserved++
			return nil
		}
		return err
	}
	var shares []share
	for res := range src.Networks() {
		var rec struct {
			Code string `maxminddb:"country_code"`
		}
		if err := res.Decode(&rec); err != nil {
			return st, fmt.Errorf("network %v: %w", res.Prefix(), err)
		}
		st.read++
		if !isCountry(rec.Code) {
			st.noCountry++
			continue
		}
		p := res.Prefix()
		longest := v6Bits
		if p.Addr().Is4() {
			longest = v4Bits
		}
		if p.Bits() > longest {
			st.merged++
			parent := netip.PrefixFrom(p.Addr(), longest).Masked()
			shares = append(shares, share{parent, rec.Code, math.Ldexp(1, longest-p.Bits())})
			continue
		}
		if err := insert(p, rec.Code); err != nil {
			return st, fmt.Errorf("network %v: %w", p, err)
		}
	}
	for _, s := range largest(shares) {
		if err := insert(s.network, s.country); err != nil {
			return st, fmt.Errorf("network %v: %w", s.network, err)
		}
	}
	if st.read == st.noCountry {
		return st, errors.New("no network has a country_code: not a database of ip-location-db's country form")
	}
	var b bytes.Buffer
	if _, err := tree.WriteTo(&b); err != nil {
		return st, err
	}
	_, err = w.Write(b.Bytes())
	return st, err
}

// largest keeps, for each network, the country with the largest share of it; the alphabet decides a tie.
func largest(shares []share) []share {
	slices.SortStableFunc(shares, func(a, b share) int {
		return cmp.Or(a.network.Addr().Compare(b.network.Addr()), cmp.Compare(a.country, b.country))
	})
	var sums []share
	for _, s := range shares {
		if n := len(sums); n > 0 && sums[n-1].network == s.network && sums[n-1].country == s.country {
			sums[n-1].of += s.of
			continue
		}
		sums = append(sums, s)
	}
	var best []share
	for _, s := range sums {
		n := len(best)
		if n == 0 || best[n-1].network != s.network {
			best = append(best, s)
		} else if s.of > best[n-1].of {
			best[n-1] = s
		}
	}
	return best
}
