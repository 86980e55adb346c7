// Command geobuild owns the making of the built-in country database, clicks/geo/country.mmdb.
//
// It reads a database of the ip-location-db project (flat: every network has a country_code) and writes the same answers in
// GeoLite2-Country form (country.iso_code), so that the program reads one form only and a licensed MaxMind file drops in unchanged.
// It promises the same bytes for the same input: nothing in the output depends on when or where it ran. It never downloads.
//
// To renew the database (each release of the package is one day's data):
//
//	npm pack @ip-location-db/geo-whois-asn-country-mmdb
//	tar -xzf ip-location-db-geo-whois-asn-country-mmdb-*.tgz
//	go run ./internal/geobuild -in package/geo-whois-asn-country.mmdb -out clicks/geo/country.mmdb
//
// and write the package's version into clicks/geo/README.md.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"
)

// maxBytes keeps the binary, and every clone of the repository, small.
const maxBytes = 5 << 20

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "geobuild:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("geobuild", flag.ContinueOnError)
	in := fs.String("in", "package/geo-whois-asn-country.mmdb", "database with a flat country_code, IPv4 and IPv6 in one")
	to := fs.String("out", "clicks/geo/country.mmdb", "database to write")
	if err := fs.Parse(args); err != nil {
		return err
	}
	src, err := maxminddb.Open(*in)
	if err != nil {
		return fmt.Errorf("open %s: %w", *in, err)
	}
	defer src.Close()
	if src.Metadata.IPVersion != 6 {
		return fmt.Errorf("%s holds IPv%d only; the database with both is wanted", *in, src.Metadata.IPVersion)
	}
	var b bytes.Buffer
	st, err := convert(src, &b)
	if err != nil {
		return fmt.Errorf("convert %s: %w", *in, err)
	}
	if b.Len() > maxBytes {
		return fmt.Errorf("the result has %d bytes, more than the %d that are allowed", b.Len(), maxBytes)
	}
	if err := os.WriteFile(*to, b.Bytes(), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %d bytes, data of %s, %d networks read, %d without a country dropped, %d reserved dropped, %d longer than /%d (IPv4) or /%d (IPv6) merged\n",
		*to, b.Len(), src.Metadata.BuildTime().UTC().Format(time.RFC3339), st.read, st.noCountry, st.reserved, st.merged, v4Bits, v6Bits)
	return nil
}
