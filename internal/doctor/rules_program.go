package doctor

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	oldestLibrdkafka = "2.10.0"
	oldGeo           = 35 * 24 * time.Hour // GeoLite2 is published twice a week, its licence asks for updates within 30 days
)

var programRules = []rule{
	{
		name: "unknown-setting", severity: Warning,
		why: "A setting that is misspelt is not in force, and nothing else says so.",
		check: func(p *probe) {
			for _, name := range p.Misspelt {
				p.found(name, "exactly config print", "the environment has %s, which is no setting", name)
			}
		},
	},
	{
		name: "librdkafka-version", severity: Error,
		why: "Before 2.10 a commit during a rebalance could lose the assignment (librdkafka #4908). A dynamically linked program runs with whatever is installed.",
		check: func(p *probe) {
			if p.Settings.Kafka.Client == "confluent" && older(p.Librdkafka, oldestLibrdkafka) {
				p.found("", "install librdkafka "+oldestLibrdkafka+" or newer, or use the statically linked program", "this program is linked with librdkafka %s", p.Librdkafka)
			}
		},
	},
	{
		name: "geo-database", severity: Error,
		why: "A worker does not start without its geo database.",
		check: func(p *probe) {
			if p.Geo.Err != "" {
				p.found("geo.database", "put a GeoLite2-Country or GeoIP2-Country file there", "%s", p.Geo.Err)
			}
		},
	},
	{
		name: "geo-built-in", severity: Development,
		why: "The built-in database knows which registry gave an address out, not where it is used. Countries once captured are not corrected later.",
		check: func(p *probe) {
			if p.Geo.Path == "" && p.Geo.Err == "" {
				p.found("geo.database", "set geo.database (EXACTLY_GEO_DATABASE) to a GeoLite2-Country or GeoIP2-Country file", "countries come from the built-in database of %s", p.Geo.Built.UTC().Format(time.DateOnly))
			}
		},
	},
	{
		name: "geo-age", severity: Warning,
		why: "Networks move: an old database gives wrong countries, and rows keep them. Its licence, too, asks for the update.",
		check: func(p *probe) {
			if p.Geo.Path == "" || p.Geo.Err != "" {
				return
			}
			if age := p.Now.Sub(p.Geo.Built); age > oldGeo {
				p.found(p.Geo.Path, "replace the file and restart the workers one after the other (geoipupdate fetches it)", "it was built %s, %d days ago", p.Geo.Built.UTC().Format(time.DateOnly), int(age.Hours()/24))
			}
		},
	},
}

// older compares dotted version numbers.
func older(have, than string) bool {
	a, b := strings.Split(have, "."), strings.Split(than, ".")
	for i := range b {
		var x int
		if i < len(a) {
			x, _ = strconv.Atoi(strings.TrimRight(a[i], "-abcdefghijklmnopqrstuvwxyzRCPE")) // 2.11.0-RC1
		}
		y, err := strconv.Atoi(b[i])
		if err != nil {
			panic(fmt.Sprintf("doctor: %q is no version", than))
		}
		if x != y {
			return x < y
		}
	}
	return false
}
