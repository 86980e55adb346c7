package doctor

import (
	"errors"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/transactions"
	"github.com/exactly-pipeline/exactly/schema"
)

// wellFacts are a deployment that breaks no rule.
func wellFacts(t *testing.T) *Facts {
	t.Helper()
	cfg, err := config.Load("", []string{"EXACTLY_WORKER_ID=w"}, nil)
	require.NoError(t, err)
	f := &Facts{
		Settings: cfg, Librdkafka: "2.15.0", ClusterID: "c", Now: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC),
		Geo:    GeoFacts{Path: "/geo.mmdb", Built: time.Date(2026, 5, 20, 0, 0, 0, 0, time.UTC)},
		Topics: map[string]*Topic{}, Internal: map[string]*Topic{}, Subjects: map[string]*schema.Subject{}, Unknown: map[Part]string{},
		Group: Group{Members: []Member{{"w1", "exactly-w1", "h"}}, Told: true},
		Database: Database{
			Version: 150018, User: "app", Encoding: "UTF8", SessionKept: true, Have: 3, Want: 3, Trigger: "O", Days: 8,
			Connections: Connections{Max: 100, Reserved: 3, Used: 10, UserLimit: -1}, SkewError: time.Millisecond, Skew: -3 * time.Millisecond,
			Settings: map[string]string{
				"default_transaction_read_only": "off", "default_transaction_isolation": "read committed", "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on",
				"synchronous_standby_names": "", "autovacuum": "on", "statement_timeout": "0", "idle_session_timeout": "0", "tcp_keepalives_idle": "7200",
			},
			Source: &Source{ClusterID: "c", TopicIDs: map[string]string{}},
		},
	}
	for id := range int32(3) {
		b := Broker{ID: id, Guess: "v4.1", Requests: map[int16]int16{int16(kmsg.DescribeTransactions): 0}, Settings: map[string]string{
			"transaction.max.timeout.ms": "900000", "group.min.session.timeout.ms": "6000", "group.max.session.timeout.ms": "1800000", "offsets.retention.minutes": "10080",
			"transaction.state.log.replication.factor": "3", "transaction.state.log.min.isr": "2", "offsets.topic.replication.factor": "3", "min.insync.replicas": "2",
		}}
		for _, r := range required {
			b.Requests[int16(r.key)] = r.version
		}
		f.Brokers = append(f.Brokers, b)
	}
	topic := func(name string) *Topic {
		return &Topic{
			Name: name, ID: "id of " + name, Partitions: []Partition{{0, 0, 3, 3}, {1, 1, 3, 3}}, Told: true,
			Settings: map[string]string{
				"min.insync.replicas": "2", "unclean.leader.election.enable": "false", "cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1",
				"message.timestamp.type": "CreateTime", "message.timestamp.before.max.ms": strconv.Itoa(math.MaxInt64), "message.timestamp.after.max.ms": "3600000", "max.message.bytes": "1048588",
			},
		}
	}
	for _, name := range cfg.AllTopics() {
		f.Topics[name] = topic(name)
		f.Database.Source.TopicIDs[name] = "id of " + name
	}
	f.Topics[cfg.Topics.Replay] = topic(cfg.Topics.Replay)
	f.Topics[heads].Settings["retention.ms"] = "-1"
	for _, name := range []string{"__transaction_state", "__consumer_offsets"} {
		f.Internal[name] = topic(name)
	}
	for _, name := range []string{cfg.Topics.Input, cfg.Topics.Output} {
		f.Subjects[name+"-value"] = &schema.Subject{Versions: []schema.Version{{Version: 1, ID: 1}}, Level: "BACKWARD", Ours: true}
	}
	return f
}

const in, out, dlq, heads = "user_clicks", "enriched_clicks", "user_clicks_dlq", "exactly_ledger_heads"

// broken are deployments each of which breaks one rule and no other: what is changed, and what the finding says.
var broken = []struct {
	rule     string
	severity Severity
	found    string // regular expression
	change   func(*Facts)
}{
	{"unknown-setting", Warning, "EXACTLY_GRUOP", func(f *Facts) { f.Misspelt = []string{"EXACTLY_GRUOP"} }},
	{"librdkafka-version", Error, "2.9.9", func(f *Facts) { f.Librdkafka = "2.9.9" }},
	{"geo-database", Error, "no such file", func(f *Facts) { f.Geo = GeoFacts{Path: "/geo.mmdb", Err: "no such file"} }},
	{"geo-built-in", Development, "built-in database of 2026-05-20", func(f *Facts) { f.Geo.Path = "" }},
	{"geo-age", Warning, "40 days ago", func(f *Facts) { f.Geo.Built = f.Now.AddDate(0, 0, -40) }},

	{"kafka-version", Error, "broker 1 .* lacks topic ids", func(f *Facts) { f.Brokers[1].Requests[int16(kmsg.Metadata)] = 9 }},
	{"kafka-version", Error, "lacks stable group offsets", func(f *Facts) { delete(f.Brokers[0].Requests, int16(kmsg.OffsetFetch)) }},
	{"kafka-transactions-visible", Warning, "broker 2", func(f *Facts) { delete(f.Brokers[2].Requests, int16(kmsg.DescribeTransactions)) }},
	{"broker-count", Development, "has 2", func(f *Facts) { f.Brokers = f.Brokers[:2] }},
	{"transaction-timeout", Error, "is 10s, its transaction.max.timeout.ms 5000", func(f *Facts) { f.Brokers[0].Settings["transaction.max.timeout.ms"] = "5000" }},
	{"session-timeout", Error, "is 10s, its bounds are 30000", func(f *Facts) { f.Brokers[0].Settings["group.min.session.timeout.ms"] = "30000" }},
	{"session-timeout", Error, "and 9000 ms", func(f *Facts) { f.Brokers[0].Settings["group.max.session.timeout.ms"] = "9000" }},
	{"offsets-retention", Warning, "is 1440", func(f *Facts) { f.Brokers[0].Settings["offsets.retention.minutes"] = "1440" }},
	{"transaction-state-replication", Error, "partitions with 1 replicas", func(f *Facts) { f.Internal["__transaction_state"].Partitions[1].Replicas = 1 }},
	{"transaction-state-replication", Error, "min.insync.replicas is 1", func(f *Facts) { f.Internal["__transaction_state"].Settings["min.insync.replicas"] = "1" }},
	{"transaction-state-replication", Error, "none yet.*min.isr=1", func(f *Facts) {
		delete(f.Internal, "__transaction_state")
		f.Brokers[0].Settings["transaction.state.log.min.isr"] = "1"
	}},
	{"consumer-offsets-replication", Error, "none yet.*replication.factor=1", func(f *Facts) {
		delete(f.Internal, "__consumer_offsets")
		f.Brokers[0].Settings["offsets.topic.replication.factor"] = "1"
	}},
	{"consumer-offsets-replication", Error, "min.insync.replicas is 1", func(f *Facts) { f.Internal["__consumer_offsets"].Settings["min.insync.replicas"] = "1" }},
	{"kafka-permissions", Error, "lacks Write on topic enriched_clicks", func(f *Facts) { f.Lacks = []string{"Write on topic enriched_clicks"} }},
	{"group-members", Error, "client sarama at 10.0.0.9", func(f *Facts) { f.Group.Members = append(f.Group.Members, Member{"", "sarama", "10.0.0.9"}) }},
	{"open-transactions", Warning, "producer 7 that no coordinator knows of", func(f *Facts) {
		f.Open = []transactions.Transaction{{State: transactions.Hanging, ProducerID: 7, Partitions: []transactions.Partition{{Topic: out}}}}
	}},
	{"open-transactions", Warning, "exactly-w has been open for 2m0s", func(f *Facts) {
		age, timeout := int64(120_000), int64(10_000)
		f.Open = []transactions.Transaction{{ID: "exactly-w", State: "Ongoing", AgeMs: &age, TimeoutMs: &timeout, Overdue: true}}
	}},
	{"open-transactions", Warning, "exactly-w began 1h0m0s in the future", func(f *Facts) {
		age, timeout, ahead := int64(0), int64(10_000), int64(3_600_000)
		f.Open = []transactions.Transaction{{ID: "exactly-w", State: "Ongoing", AgeMs: &age, TimeoutMs: &timeout, AheadMs: &ahead}}
	}},

	{"topic-missing", Error, "user_clicks_dlq does not exist", func(f *Facts) { delete(f.Topics, dlq) }},
	{"topic-identity", Error, "the cluster is other", func(f *Facts) { f.ClusterID = "other" }},
	{"topic-missing", Error, "dead letters can't be replayed", func(f *Facts) { delete(f.Topics, "user_clicks_replay") }},
	{"topic-identity", Error, "its topic id is new", func(f *Facts) { f.Topics[out].ID = "new" }},
	{"topic-partitions", Warning, "has 1 partitions, the input 2", func(f *Facts) { f.Topics[dlq].Partitions = f.Topics[dlq].Partitions[:1] }},
	{"topic-replication", Error, "a single replica", func(f *Facts) {
		f.Topics[in].Partitions = []Partition{{0, 0, 1, 1}}
		for _, t := range []string{out, dlq} {
			f.Topics[t].Partitions = f.Topics[t].Partitions[:1]
		}
		f.Topics[in].Settings["min.insync.replicas"] = "-" // that rule has its own
	}},
	{"topic-replication", Warning, "with 2 replicas", func(f *Facts) {
		f.Topics[in].Partitions[0] = Partition{0, 0, 2, 2}
		f.Topics[in].Settings["min.insync.replicas"] = "-"
	}},
	{"topic-in-sync", Error, "no leader: partitions 1", func(f *Facts) { f.Topics[in].Partitions[1].Leader = -1 }},
	{"topic-in-sync", Warning, "out of sync: partitions 0, 1", func(f *Facts) { f.Topics[in].Partitions = []Partition{{0, 0, 3, 2}, {1, 0, 3, 1}} }},
	{"min-insync-replicas", Error, "is 1", func(f *Facts) { f.Topics[out].Settings["min.insync.replicas"] = "1" }},
	{"min-insync-replicas", Warning, "is 3, and it has partitions with 3", func(f *Facts) { f.Topics[out].Settings["min.insync.replicas"] = "3" }},
	{"unclean-leader-election", Error, "is true", func(f *Facts) { f.Topics[in].Settings["unclean.leader.election.enable"] = "true" }},
	{"unclean-leader-election", Error, "is true", func(f *Facts) { f.Internal["__consumer_offsets"].Settings["unclean.leader.election.enable"] = "true" }},
	{"cleanup-policy", Error, `"compact,delete"`, func(f *Facts) { f.Topics[in].Settings["cleanup.policy"] = "compact,delete" }},
	{"input-retention", Warning, "for 24h0m0s", func(f *Facts) { f.Topics[in].Settings["retention.ms"] = "86400000" }},
	{"input-retention", Warning, "1000000 bytes", func(f *Facts) { f.Topics[in].Settings["retention.bytes"] = "1000000" }},
	{"output-retention", Warning, "for 6 days, the input keeps clicks for 7 days", func(f *Facts) { f.Topics[dlq].Settings["retention.ms"] = "518400000" }},
	{"output-retention", Warning, "for 30 days, the input keeps clicks for ever", func(f *Facts) {
		f.Topics[in].Settings["retention.ms"], f.Topics[out].Settings["retention.ms"], f.Topics[dlq].Settings["retention.ms"] = "-1", "-1", "2592000000"
	}},
	{"heads-retention", Error, "for 7 days", func(f *Facts) { f.Topics[heads].Settings["retention.ms"] = "604800000" }},
	{"heads-retention", Error, "1000000 bytes", func(f *Facts) { f.Topics[heads].Settings["retention.bytes"] = "1000000" }},
	{"output-timestamps", Error, "LogAppendTime", func(f *Facts) { f.Topics[out].Settings["message.timestamp.type"] = "LogAppendTime" }},
	{"output-timestamps", Error, "more than 7 days old; the input takes them up to any time old", func(f *Facts) { f.Topics[out].Settings["message.timestamp.before.max.ms"] = "604800000" }},
	{"output-timestamps", Error, "more than 8 days old; the input takes them up to 7 days old, and keeps them for 7 days", func(f *Facts) {
		f.Topics[in].Settings["message.timestamp.before.max.ms"], f.Topics[dlq].Settings["message.timestamp.before.max.ms"] = "604800000", "691200000"
	}},
	{"output-timestamps", Error, "more than 1m0s ahead, the input 1h0m0s", func(f *Facts) { f.Topics[out].Settings["message.timestamp.after.max.ms"] = "60000" }},
	{"message-size", Error, "is 1000, the input's 1048588", func(f *Facts) { f.Topics[dlq].Settings["max.message.bytes"] = "1000" }},

	{"registry-subjects", Error, "nothing is registered", func(f *Facts) { f.Subjects[in+"-value"].Versions = nil }},
	{"registry-schema", Error, "not compatible", func(f *Facts) { f.Subjects[out+"-value"].Refused = "it is not compatible" }},
	{"registry-readable", Error, "schema id 9: no user_id", func(f *Facts) {
		f.Subjects[in+"-value"].Versions = append(f.Subjects[in+"-value"].Versions, schema.Version{Version: 2, ID: 9, Unreadable: "no user_id"})
	}},
	{"registry-compatibility", Development, "is NONE", func(f *Facts) { f.Subjects[in+"-value"].Level = "NONE" }},

	{"postgres-version", Error, "PostgreSQL 13", func(f *Facts) { f.Database.Version = 130004 }},
	{"postgres-primary", Error, "a replica", func(f *Facts) { f.Database.Replica = true }},
	{"postgres-primary", Error, "read-only", func(f *Facts) { f.Database.Settings["default_transaction_read_only"] = "on" }},
	{"postgres-session", Error, "unsupported startup parameter", func(f *Facts) { f.Database.SessionError = "unsupported startup parameter" }},
	{"postgres-session", Error, "did not stay", func(f *Facts) { f.Database.SessionKept = false }},
	{"transaction-isolation", Error, `"repeatable read"`, func(f *Facts) { f.Database.Settings["default_transaction_isolation"] = "repeatable read" }},
	{"fsync", Development, "is off", func(f *Facts) { f.Database.Settings["fsync"] = "off" }},
	{"full-page-writes", Development, "is off", func(f *Facts) { f.Database.Settings["full_page_writes"] = "off" }},
	{"synchronous-commit", Error, "loses the last commits", func(f *Facts) { f.Database.Settings["synchronous_commit"] = "off" }},
	{"synchronous-commit", Warning, "is local", func(f *Facts) {
		f.Database.Settings["synchronous_commit"], f.Database.Settings["synchronous_standby_names"] = "local", "s"
	}},
	{"synchronous-standby", Warning, "1 standbys follow", func(f *Facts) { f.Database.Standbys = 1 }},
	{"max-connections", Warning, "11 are left", func(f *Facts) { f.Database.Connections.Used = 86 }},
	{"max-connections", Warning, "limit of 10 sessions, 3 in use", func(f *Facts) { f.Database.Connections.UserLimit, f.Database.Connections.UserUsed = 10, 3 }},
	{"postgres-timeouts", Warning, "30000 ms", func(f *Facts) { f.Database.Settings["statement_timeout"] = "30000" }},
	{"postgres-timeouts", Warning, "60000 ms", func(f *Facts) { f.Database.Settings["transaction_timeout"] = "60000" }},
	{"tcp-keepalive", Warning, "after 2h0m0s", func(f *Facts) { f.Database.Remote = true }},
	{"autovacuum", Warning, "is off", func(f *Facts) { f.Database.Settings["autovacuum"] = "off" }},
	{"server-encoding", Error, "SQL_ASCII", func(f *Facts) { f.Database.Encoding = "SQL_ASCII" }},
	{"clock-skew", Warning, "2s behind", func(f *Facts) { f.Database.Skew = -2 * time.Second }},
	{"clock-skew", Warning, "3s ahead of", func(f *Facts) { f.Database.Skew = 3 * time.Second }},

	{"migrations", Error, "is at migration 1, this program needs 3", func(f *Facts) { f.Database.Have = 1 }},
	{"migrations", Error, "newer than this program's", func(f *Facts) { f.Database.Have = 4 }},
	{"source", Error, "unknown to the database", func(f *Facts) { f.Database.Source = nil }},
	{"worker-rights", Error, "user app may not: INSERT on outbox, SELECT on sources", func(f *Facts) { f.Database.Lacks = []string{"INSERT on outbox", "SELECT on sources"} }},
	{"ledger-writable", Development, "user app may UPDATE it", func(f *Facts) { f.Database.Ledger = []string{"may UPDATE it"} }},
	{"ledger-trigger", Error, "is gone", func(f *Facts) { f.Database.Trigger = "" }},
	{"ledger-trigger", Error, "switched off", func(f *Facts) { f.Database.Trigger = "D" }},
	{"worker-signals", Warning, `\(b, c\)`, func(f *Facts) { f.Database.Workers = []string{"b", "c"} }},
	{"schema-create", Development, "every user may create", func(f *Facts) { f.Database.PublicCreates = true }},
	{"time-partitions", Warning, "for 1 days", func(f *Facts) { f.Database.Days = 1 }},
	{"default-partition", Warning, "holds, or has held, rows", func(f *Facts) { f.Database.Default = []string{"outbox_default"} }},
}

// Each rule finds what breaks it, and nothing else does.
func TestRules(t *testing.T) {
	fired := map[string]bool{}
	for _, c := range broken {
		fired[c.rule] = true
		t.Run(c.rule+" "+c.found, func(t *testing.T) {
			f := wellFacts(t)
			c.change(f)
			r := judge(f, false)
			require.NotEmpty(t, r.Findings)
			for _, got := range r.Findings {
				require.Equal(t, c.rule, got.Rule, "%+v", got)
				require.Equal(t, c.severity, got.Severity, "%+v", got)
				require.NotEmpty(t, got.Why)
				require.NotEmpty(t, got.Run)
			}
			require.Regexp(t, c.found, r.Findings[0].Found)
			require.Equal(t, "found", r.Verdict)
			require.Equal(t, c.severity == Development, judge(f, true).Clean(), "with --dev")
		})
	}
	for _, r := range Rules() {
		require.True(t, fired[r.Name], "no failing fixture for the rule %s", r.Name)
		require.Regexp(t, `^[a-z]+(-[a-z]+)*$`, r.Name)
	}
	require.Len(t, fired, len(rules), "two rules of one name, or a fixture without a rule")
}

func TestWell(t *testing.T) {
	r := judge(wellFacts(t), false)
	require.Empty(t, r.Findings)
	require.Empty(t, r.Unchecked)
	require.True(t, r.Clean())
	require.NoError(t, r.Err())
}

// What is not known is named, and makes no finding; a store that was not reached makes the whole report one that can't say.
func TestUnknown(t *testing.T) {
	f := wellFacts(t)
	for i := range f.Brokers {
		delete(f.Brokers[i].Settings, "transaction.max.timeout.ms")
	}
	f.Topics[in].Told = false
	f.Unknown[TopicSettings] = "forbidden"
	r := judge(f, false)
	require.True(t, r.Clean())
	unchecked := map[string]string{}
	for _, u := range r.Unchecked {
		unchecked[u.Rule] = u.Why
	}
	require.Equal(t, "not told: transaction.max.timeout.ms (broker 0, broker 1, broker 2)", unchecked["transaction-timeout"])
	require.Equal(t, "not told: what this Kafka user may do (topic user_clicks)", unchecked["kafka-permissions"])
	require.Equal(t, "topic settings: forbidden", unchecked["cleanup-policy"])

	for _, store := range []Part{Kafka, Registry, Postgres} {
		f := &Facts{Settings: wellFacts(t).Settings, Librdkafka: "2.15.0", Unknown: map[Part]string{store: errors.New("refused").Error()}, Geo: GeoFacts{Path: "/g", Built: time.Now()}, Now: time.Now()}
		r := judge(f, false)
		require.Equal(t, "unable", r.Verdict)
		require.ErrorContains(t, r.Err(), string(store)+" could not be looked at: refused")
		for _, rule := range rules {
			if slices.Contains(rule.needs, store) {
				require.True(t, slices.ContainsFunc(r.Unchecked, func(u Unchecked) bool { return u.Rule == rule.name }), rule.name)
				require.False(t, slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Rule == rule.name }), rule.name)
			}
		}
	}
}

// A rule that asks for a store says that it needs it: held against facts without it, no rule finds anything or panics.
func TestRulesSayWhatTheyNeed(t *testing.T) {
	for i := range rules {
		rule := &rules[i]
		f := wellFacts(t)
		empty := &Facts{Settings: f.Settings, Unknown: map[Part]string{}, Now: f.Now, Librdkafka: f.Librdkafka, Geo: f.Geo}
		if slices.Contains(rule.needs, Postgres) {
			empty.Database = f.Database
		}
		if slices.Contains(rule.needs, Kafka) {
			empty.Brokers, empty.Topics, empty.Internal, empty.Group, empty.ClusterID = f.Brokers, f.Topics, f.Internal, f.Group, f.ClusterID
		}
		if slices.Contains(rule.needs, Registry) {
			empty.Subjects = f.Subjects
		}
		p := &probe{Facts: empty, rule: rule}
		rule.check(p)
		require.Empty(t, p.findings, rule.name)
	}
}

// Fewer brokers than replicas: what a development stack can't help is called that.
func TestDevelopmentStack(t *testing.T) {
	f := wellFacts(t)
	f.Brokers = f.Brokers[:1]
	f.Brokers[0].Settings["transaction.state.log.replication.factor"] = "1"
	f.Internal = map[string]*Topic{}
	for _, topic := range f.Topics {
		topic.Partitions = []Partition{{0, 0, 1, 1}}
		topic.Settings["min.insync.replicas"] = "1"
	}
	r := judge(f, false)
	require.NotEmpty(t, r.Findings)
	for _, got := range r.Findings {
		require.Equal(t, Development, got.Severity, "%+v", got)
		if strings.Contains(got.Run, "min.insync.replicas=2") { // done on one replica, it stops every writer
			require.True(t, regexp.MustCompile("^first its replication").MatchString(got.Run), got.Run)
		}
	}
	require.True(t, judge(f, true).Clean())
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		have, than string
		older      bool
	}{{"2.9.9", "2.10.0", true}, {"2.10.0", "2.10.0", false}, {"2.15.0", "2.10.0", false}, {"1.9", "2.10.0", true}, {"2.11.0-RC1", "2.10.0", false}, {"3", "2.10.0", false}, {"", "2.10.0", true}} {
		require.Equal(t, c.older, older(c.have, c.than), "%s", c.have)
	}
	require.EqualValues(t, math.MaxInt64, sum(math.MaxInt64, 1))
	require.EqualValues(t, math.MaxInt64, sum(5, -1))
	require.EqualValues(t, 6, sum(5, 1))
}
