package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/transactions"
	"github.com/exactly-pipeline/exactly/schema"
)

// Part is a part of the facts that may be unknown as a whole: a store that can't be reached, or something that may not be looked at.
type Part string

// The parts. Of the first three nothing can be said without them.
const (
	Kafka          Part = "kafka"
	Registry       Part = "schema registry"
	Postgres       Part = "postgres"
	BrokerSettings Part = "broker settings"
	TopicSettings  Part = "topic settings"
	GroupMembers   Part = "group"
	Transactions   Part = "transactions"
	Tables         Part = "tables" // no migration has been applied
	Migrations     Part = "migrations"
	SourceRow      Part = "source"
)

// Facts are what rules judge. What is not known is in Unknown, and left empty.
type Facts struct {
	Settings   config.Config
	Misspelt   []string // EXACTLY_ variables that are no setting
	Librdkafka string   // version
	Geo        GeoFacts
	Brokers    []Broker
	ClusterID  string
	Topics     map[string]*Topic // those of the settings that exist
	Internal   map[string]*Topic // __transaction_state, __consumer_offsets, where they exist
	Group      Group
	Lacks      []string // rights that a worker needs and this Kafka user has not
	Open       []transactions.Transaction
	Subjects   map[string]*schema.Subject
	Database   Database
	Unknown    map[Part]string
	Now        time.Time
}

// Broker is one broker.
type Broker struct {
	ID       int32
	Guess    string            // the version of Kafka that its requests are of
	Requests map[int16]int16   // key to newest version
	Settings map[string]string // null values left out
}

// Topic is one topic.
type Topic struct {
	Name       string
	ID         string
	Partitions []Partition
	Settings   map[string]string
	Told       bool // the broker tells what this Kafka user may do with it (KIP-430)
}

// Partition is one partition's replicas.
type Partition struct {
	ID               int32
	Leader           int32 // -1: none
	Replicas, InSync int
}

// replication is the smallest number of replicas of a topic's partitions.
func (t *Topic) replication() int {
	least := 0
	for i, p := range t.Partitions {
		if i == 0 || p.Replicas < least {
			least = p.Replicas
		}
	}
	return least
}

// Group is the consumer group, if it has members.
type Group struct {
	Members []Member
	Told    bool // likewise; not of a group that nobody has joined yet
}

// Member is one member.
type Member struct{ Instance, Client, Host string }

// GeoFacts are about the geo database.
type GeoFacts struct {
	Path  string // empty: built in
	Err   string // why it can't be opened
	Built time.Time
}

// Database is Postgres, as a worker's session meets it.
type Database struct {
	Version       int               // server_version_num
	Settings      map[string]string // pg_settings, as this session has them
	SessionError  string            // why a session with a worker's settings is refused; empty: it is not
	SessionKept   bool              // the settings and the backend stay the same from one transaction to the next
	User          string
	Superuser     bool
	Replica       bool // in recovery
	Encoding      string
	Remote        bool          // not on this machine
	Skew          time.Duration // its clock minus ours
	SkewError     time.Duration // at most
	Connections   Connections
	Standbys      int // that stream from it
	PublicCreates bool
	Workers       []string // login users that are members of exactly_worker, this one left out
	MaySignal     bool     // end other users' sessions

	Have, Want int64 // migrations
	Source     *Source
	Trigger    string   // of the ledger: pg_trigger.tgenabled, empty if there is none
	Ledger     []string // what this user may do to the ledger and nobody should
	Lacks      []string // rights a worker needs and this user has not
	Days       int      // days from today on with time partitions in all tables
	Default    []string // default time partitions that hold rows
}

// Source is the row of sources for the settings' topic and group.
type Source struct {
	ClusterID string
	TopicIDs  map[string]string
}

// Connections are what the server has room for.
type Connections struct{ Max, Reserved, Used, UserLimit, UserUsed int } // UserLimit -1: none

// unknown is why any of the parts is not known, empty if all are.
func (f *Facts) unknown(needs []Part) string {
	for _, n := range needs {
		if why, is := f.Unknown[n]; is {
			if n == Kafka || n == Registry || n == Postgres {
				return string(n) + " could not be looked at"
			}
			return string(n) + ": " + why
		}
	}
	return ""
}

// seen are the versions and the like, for people.
func (f *Facts) seen() map[string]string {
	s := map[string]string{"librdkafka": f.Librdkafka}
	if _, no := f.Unknown[Kafka]; !no {
		versions := map[string]bool{}
		for _, b := range f.Brokers {
			versions[b.Guess] = true
		}
		s["kafka"] = fmt.Sprintf("%d brokers, %s, cluster %s", len(f.Brokers), strings.Join(slices.Sorted(maps.Keys(versions)), " and "), f.ClusterID)
	}
	if v := f.Database.Version; v > 0 {
		s["postgres"] = fmt.Sprintf("%d.%d as %s", v/10000, v%10000, f.Database.User)
		s["clock_skew"] = fmt.Sprintf("postgres %+d ms, to within %d ms", f.Database.Skew.Milliseconds(), f.Database.SkewError.Milliseconds()+1)
	}
	if !f.Geo.Built.IsZero() {
		s["geo"] = f.Geo.Built.UTC().Format(time.DateOnly)
	}
	return s
}

// probe is one rule held against the facts.
type probe struct {
	*Facts
	rule     *rule
	findings []Finding
	missing  []string // what was not told
	of       map[string][]string
}

// found notes a finding.
func (p *probe) found(subject, run, format string, a ...any) {
	p.foundAs(p.rule.severity, subject, run, format, a...)
}

func (p *probe) foundAs(s Severity, subject, run, format string, a ...any) {
	p.findings = append(p.findings, Finding{Rule: p.rule.name, Severity: s, Subject: subject, Found: fmt.Sprintf(format, a...), Why: p.rule.why, Run: run})
}

// setting is one of a broker's, topic's or database's settings. What is not told is noted; then ok is false.
func (p *probe) setting(of string, settings map[string]string, name string) (value string, ok bool) {
	value, ok = settings[name]
	if !ok {
		p.miss(name, of)
	}
	return value, ok
}

// miss notes that something was not told of something.
func (p *probe) miss(what, of string) {
	if p.of == nil {
		p.of = map[string][]string{}
	}
	if p.of[what] == nil {
		p.missing = append(p.missing, what)
	}
	p.of[what] = append(p.of[what], of)
}

// missed says what was not told, and of what.
func (p *probe) missed() string {
	var all []string
	for _, what := range p.missing {
		all = append(all, fmt.Sprintf("%s (%s)", what, strings.Join(p.of[what], ", ")))
	}
	return "not told: " + strings.Join(all, ", ")
}

// number is a setting that is a number.
func (p *probe) number(of string, settings map[string]string, name string) (int64, bool) {
	s, ok := p.setting(of, settings, name)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		p.miss(name, of)
		return 0, false
	}
	return n, true
}

// ours are the settings' topics that exist, input first.
func (p *probe) ours() []*Topic {
	var out []*Topic
	for _, name := range p.names() {
		if t := p.Topics[name]; t != nil {
			out = append(out, t)
		}
	}
	return out
}

func (p *probe) names() []string {
	return p.Settings.AllTopics()
}

// outputs are those of ours that events and dead letters are published to.
func (p *probe) outputs() []*Topic {
	return slices.DeleteFunc(p.ours(), func(t *Topic) bool {
		return t.Name == p.Settings.Topics.Input || t.Name == p.Settings.Ledger.HeadsTopic
	})
}

func brokerName(b Broker) string { return fmt.Sprintf("broker %d", b.ID) }

// days is milliseconds in words.
func days(ms int64) string {
	if ms < 0 {
		return "ever"
	}
	d := time.Duration(ms) * time.Millisecond
	if d >= 48*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}
