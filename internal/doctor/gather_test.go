package doctor

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sr"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/acl"
	"github.com/exactly-pipeline/exactly/internal/config"
)

// rulesOf are the rules that were broken, sorted.
func rulesOf(fs []Finding) []string {
	names := map[string]bool{}
	for _, f := range fs {
		names[f.Rule] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// What is found on a stack for development: before setup what is missing; after it only what is accepted there.
func TestDevelopmentStackForReal(t *testing.T) {
	b := fresh(t)
	r := b.run(Options{Dev: true})
	require.Equal(t, []string{"migrations", "registry-subjects", "topic-missing"}, rulesOf(r.Findings))
	require.Equal(t, "found", r.Verdict)
	var tables int
	require.NoError(t, b.db.QueryRow(b.ctx, `SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace`).Scan(&tables))
	require.Zero(t, tables, "doctor changed something")

	b.setUp()
	r = b.run(Options{Dev: true})
	require.Empty(t, r.Findings, "%+v", r.Findings)
	require.Equal(t, "clean", r.Verdict)
	want := []string{"geo-built-in", "fsync", "full-page-writes", "ledger-writable"} // the tests' Postgres does not sync
	brokers, err := b.adm.ListBrokers(b.ctx)
	require.NoError(t, err)
	if len(brokers) < 3 {
		want = append(want, "broker-count", "consumer-offsets-replication", "min-insync-replicas", "topic-replication")
		if !embedded() {
			want = append(want, "transaction-state-replication")
		}
	}
	require.ElementsMatch(t, want, rulesOf(r.Accepted))
	require.ElementsMatch(t, want, rulesOf(b.run(Options{}).Findings))
	require.NotContains(t, fmt.Sprintf("%+v", r), "password")
	for _, k := range []string{"kafka", "postgres", "librdkafka", "geo", "clock_skew"} {
		require.NotEmpty(t, r.Seen[k], k)
	}
	if embedded() {
		return // what the embedded broker does not tell is named: see TestNotTold
	}
	for _, u := range r.Unchecked {
		require.Equal(t, "kafka-permissions", u.Rule, u.Why) // of a group that nobody has joined yet
	}
}

// What the embedded broker does not tell.
func TestNotTold(t *testing.T) {
	if !embedded() {
		return
	}
	var got []string
	for _, u := range setup(t).run(Options{}).Unchecked {
		got = append(got, u.Rule)
	}
	require.ElementsMatch(t, []string{"transaction-state-replication", "consumer-offsets-replication", "kafka-permissions", "unclean-leader-election", "output-timestamps"}, got)
}

// Deployments that were spoilt for real, and the rule that notices.
func TestForReal(t *testing.T) {
	for _, c := range []struct {
		rule, found string
		spoil       func(*bundle)
	}{
		{"cleanup-policy", `"compact"`, func(b *bundle) { b.configure(b.cfg.Topics.Output, map[string]string{"cleanup.policy": "compact"}) }},
		{"input-retention", "for 1h0m0s", func(b *bundle) { b.configure(b.cfg.Topics.Input, map[string]string{"retention.ms": "3600000"}) }},
		{"output-retention", "for 4 days", func(b *bundle) { b.configure(b.cfg.Topics.Output, map[string]string{"retention.ms": "345600000"}) }},
		{"output-timestamps", "LogAppendTime", func(b *bundle) {
			b.configure(b.cfg.Topics.DLQ, map[string]string{"message.timestamp.type": "LogAppendTime"})
		}},
		{"message-size", "100000", func(b *bundle) { b.configure(b.cfg.Topics.Output, map[string]string{"max.message.bytes": "100000"}) }},
		{"topic-missing", "does not exist", func(b *bundle) {
			_, err := b.adm.DeleteTopic(b.ctx, b.cfg.Topics.DLQ)
			require.NoError(b.t, err)
			b.gone(b.cfg.Topics.DLQ)
		}},
		{"topic-identity", "the database knows", func(b *bundle) {
			_, err := b.adm.DeleteTopic(b.ctx, b.cfg.Topics.DLQ)
			require.NoError(b.t, err)
			b.gone(b.cfg.Topics.DLQ)
			_, err = b.adm.CreateTopic(b.ctx, 3, -1, map[string]*string{"retention.ms": kadm.StringPtr("2592000000")}, b.cfg.Topics.DLQ)
			require.NoError(b.t, err)
			require.Eventually(b.t, func() bool {
				ds, err := b.adm.ListTopics(b.ctx, b.cfg.Topics.DLQ)
				return err == nil && ds[b.cfg.Topics.DLQ].Err == nil && len(ds[b.cfg.Topics.DLQ].Partitions) == 3
			}, 20*time.Second, 20*time.Millisecond)
		}},
		{"topic-partitions", "has 4 partitions, the input 3", func(b *bundle) {
			res, err := b.adm.UpdatePartitions(b.ctx, 4, b.cfg.Topics.Output)
			require.NoError(b.t, err)
			require.NoError(b.t, res.Error())
			require.Eventually(b.t, func() bool {
				ds, err := b.adm.ListTopics(b.ctx, b.cfg.Topics.Output)
				return err == nil && len(ds[b.cfg.Topics.Output].Partitions) == 4
			}, 20*time.Second, 20*time.Millisecond)
		}},
		{"group-members", "client stranger", func(b *bundle) {
			cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.cfg.Kafka.Brokers, ",")...), kgo.ClientID("stranger"), kgo.ConsumerGroup(b.cfg.Group), kgo.ConsumeTopics(b.cfg.Topics.Input))
			require.NoError(b.t, err)
			b.t.Cleanup(cl.Close)
			require.Eventually(b.t, func() bool {
				ds, err := b.adm.DescribeGroups(b.ctx, b.cfg.Group)
				return err == nil && len(ds[b.cfg.Group].Members) == 1
			}, 30*time.Second, 20*time.Millisecond)
		}},
		{"transaction-timeout", "20m0s", func(b *bundle) {
			b.cfg.Kafka.SessionTimeout, b.cfg.Kafka.TransactionTimeout = 20*time.Second, 20*time.Minute
		}},
		{"session-timeout", "45m0s", func(b *bundle) { b.cfg.Kafka.SessionTimeout = 45 * time.Minute }},

		{"registry-compatibility", "NONE", func(b *bundle) { b.level(b.cfg.Topics.Output+"-value", sr.CompatNone) }},
		{"registry-readable", "schema id", func(b *bundle) {
			b.level(b.cfg.Topics.Input+"-value", sr.CompatNone)
			b.register(b.cfg.Topics.Input+"-value", `{"type": "record", "name": "Click", "fields": [{"name": "user_id", "type": "string"}]}`)
			b.level(b.cfg.Topics.Input+"-value", sr.CompatBackward)
		}},

		{"transaction-isolation", "serializable", func(b *bundle) { b.alter("default_transaction_isolation = 'serializable'") }},
		{"postgres-primary", "read-only", func(b *bundle) { b.alter("default_transaction_read_only = on") }},
		{"synchronous-commit", "is off", func(b *bundle) { b.alter("synchronous_commit = off") }},
		{"postgres-timeouts", "5000 ms", func(b *bundle) { b.alter("statement_timeout = '5s'") }},
		{"max-connections", "limit of 3 sessions", func(b *bundle) {
			b.exec(fmt.Sprintf(`ALTER ROLE %s CONNECTION LIMIT 3`, pgx.Identifier{b.name + "_w"}.Sanitize()))
		}},
		{"migrations", "newer than this program's", func(b *bundle) { b.exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)`) }},
		{"source", "are unknown to the database", func(b *bundle) { b.exec(`DELETE FROM sources`) }},
		{"worker-rights", "may not: INSERT on offset_ledger", func(b *bundle) { b.exec(`REVOKE INSERT ON offset_ledger FROM exactly_worker`) }},
		{"worker-rights", "may not: SELECT on sources", func(b *bundle) { b.exec(`REVOKE SELECT ON sources FROM exactly_worker`) }},
		{"worker-rights", "may not: SELECT on goose_db_version", func(b *bundle) { b.exec(`REVOKE SELECT ON goose_db_version FROM exactly_worker`) }},
		{"worker-rights", "UPDATE on partition_offsets", func(b *bundle) { b.exec(`REVOKE UPDATE (epoch) ON partition_offsets FROM exactly_worker`) }},
		{"worker-rights", "EXECUTE on exactly_make_days_ahead", func(b *bundle) { b.exec(`REVOKE EXECUTE ON FUNCTION exactly_make_days_ahead(int) FROM exactly_worker`) }},
		{"worker-rights", "INSERT on workers, UPDATE on workers", func(b *bundle) { b.cfg.Postgres.DSN = b.user("a", "exactly_auditor") }},
		{"ledger-writable", "may DELETE it", func(b *bundle) { b.exec(`GRANT DELETE ON offset_ledger TO exactly_worker`) }},
		{"ledger-writable", "owns the ledger, as a member of exactly_setup", func(b *bundle) { b.cfg.Postgres.DSN = b.user("s", "exactly_setup") }},
		{"ledger-trigger", "switched off", func(b *bundle) { b.exec(`ALTER TABLE offset_ledger DISABLE TRIGGER ALL`) }},
		{"worker-signals", "_other", func(b *bundle) { b.user("other", "exactly_worker") }},
		{"schema-create", "every user", func(b *bundle) { b.exec(`GRANT CREATE ON SCHEMA public TO PUBLIC`) }},
		{"time-partitions", "for 1 days", func(b *bundle) {
			b.exec(`DROP TABLE dead_letters_` + time.Now().UTC().AddDate(0, 0, 1).Format("20060102"))
		}},
		{"default-partition", "rows", func(b *bundle) {
			b.exec(`INSERT INTO dead_letters (source_id, source_partition, source_offset, error_class, error_stage, error_message, headers, created_at) VALUES (1, 0, 0, '', '', '', '', '2020-01-01')`)
		}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			b := setup(t)
			b.exec(`REVOKE CREATE ON SCHEMA public FROM PUBLIC`)
			c.spoil(b)
			r := b.run(Options{})
			require.Empty(t, r.Unreached)
			i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Rule == c.rule })
			require.GreaterOrEqual(t, i, 0, "%+v", r)
			require.Contains(t, r.Findings[i].Found, c.found)
			for _, f := range r.Findings { // and nothing that is not this stack's
				also := c.rule == "worker-rights" || c.rule == "ledger-writable" || c.rule == "registry-readable"
				require.True(t, f.Rule == c.rule || f.Severity == Development || also, "%+v", f)
			}
		})
	}
}

func (b *bundle) gone(topic string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		ds, err := b.adm.ListTopics(b.ctx, topic)
		return err == nil && ds[topic].Err != nil
	}, 20*time.Second, 20*time.Millisecond)
}

// alter sets what new sessions of the worker's user have.
func (b *bundle) alter(setting string) {
	b.t.Helper()
	b.exec(fmt.Sprintf(`ALTER ROLE %s SET %s`, pgx.Identifier{b.name + "_w"}.Sanitize(), setting))
}

func (b *bundle) registry() *sr.Client {
	b.t.Helper()
	cl, err := sr.NewClient(sr.URLs(b.cfg.Registry.URL))
	require.NoError(b.t, err)
	return cl
}

func (b *bundle) level(subject string, l sr.CompatibilityLevel) {
	b.t.Helper()
	require.NoError(b.t, b.registry().SetCompatibility(b.ctx, sr.SetCompatibility{Level: l}, subject)[0].Err)
}

func (b *bundle) register(subject, avsc string) {
	b.t.Helper()
	_, err := b.registry().RegisterSchema(b.ctx, subject, sr.Schema{Schema: avsc, Type: sr.TypeAvro}, -1, -1)
	require.NoError(b.t, err)
}

// As a worker of a deployment that is well, nothing of the database is found.
func TestWorkerIsWell(t *testing.T) {
	b := setup(t)
	for _, f := range b.run(Options{}).Findings {
		require.NotContains(t, []string{"ledger-writable", "worker-rights", "worker-signals", "migrations", "source"}, f.Rule, "%+v", f)
	}
}

// A store that can't be reached: the others are looked at all the same, and nobody says that all is well.
func TestUnreached(t *testing.T) {
	for store, spoil := range map[Part]func(*bundle){
		Kafka:    func(b *bundle) { b.cfg.Kafka.Brokers = "127.0.0.1:1" },
		Registry: func(b *bundle) { b.cfg.Registry.URL = "http://127.0.0.1:1" },
		Postgres: func(b *bundle) {
			b.cfg.Postgres.DSN = "postgres://exactly:hidden-password@127.0.0.1:1/x?sslmode=disable"
		},
	} {
		t.Run(string(store), func(t *testing.T) {
			t.Parallel()
			b := fresh(t)
			spoil(b)
			r := b.run(Options{Dev: true})
			require.Equal(t, "unable", r.Verdict)
			require.Len(t, r.Unreached, 1)
			require.ErrorContains(t, r.Err(), string(store)+" could not be looked at")
			require.NotContains(t, fmt.Sprint(r), "hidden-password")
			require.NotEmpty(t, r.Findings, "the other stores were not looked at")
		})
	}
}

// A pooler that refuses what it does not know, and one that drops it.
func TestPoolers(t *testing.T) {
	for name, refuse := range map[string]bool{"refuses": true, "drops": false} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			pc, err := pgx.ParseConfig(b.cfg.Postgres.DSN)
			require.NoError(t, err)
			at := fmt.Sprintf("%s:%d", pc.Host, pc.Port)
			b.cfg.Postgres.DSN = strings.Replace(b.cfg.Postgres.DSN, at, pooler(t, at, refuse), 1)
			r := b.run(Options{})
			require.Empty(t, r.Unreached)
			require.Contains(t, rulesOf(r.Findings), "postgres-session")
		})
	}
}

// pooler passes sessions on, without the startup parameters that a pooler does not know.
func pooler(t *testing.T, to string, refuse bool) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	serve := func(c net.Conn) {
		defer c.Close()
		msg, err := pgproto3.NewBackend(c, c).ReceiveStartupMessage()
		start, ok := msg.(*pgproto3.StartupMessage)
		if err != nil || !ok {
			return
		}
		if _, there := start.Parameters["idle_in_transaction_session_timeout"]; there && refuse {
			buf, _ := (&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter"}).Encode(nil)
			_, _ = c.Write(buf)
			return
		}
		delete(start.Parameters, "idle_in_transaction_session_timeout")
		s, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer s.Close()
		buf, _ := start.Encode(nil)
		if _, err := s.Write(buf); err != nil {
			return
		}
		done := make(chan struct{}, 2)
		pipe := func(dst, src net.Conn) {
			_, _ = dst.(*net.TCPConn).ReadFrom(src)
			done <- struct{}{}
		}
		go pipe(s, c)
		go pipe(c, s)
		<-done
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().String()
}

// A Kafka user with just the rights of a worker, and with one less each time.
func TestKafkaRights(t *testing.T) {
	b := fresh(t)
	rules := append(acl.Rules(&b.cfg, acl.Worker), acl.Rules(&b.cfg, acl.Pointers)...)
	for i := -1; i < len(rules); i++ {
		var acls []kfake.ACL
		for j, r := range rules {
			if i == j {
				continue
			}
			a := kfake.ACL{Name: r.Name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Allow: true,
				Operation: map[acl.Operation]kmsg.ACLOperation{acl.Read: kmsg.ACLOperationRead, acl.Write: kmsg.ACLOperationWrite, acl.DescribeConfigs: kmsg.ACLOperationDescribeConfigs}[r.Operation],
				Resource: map[acl.Type]kmsg.ACLResourceType{
					acl.Topic: kmsg.ACLResourceTypeTopic, acl.Group: kmsg.ACLResourceTypeGroup, acl.TransactionalID: kmsg.ACLResourceTypeTransactionalId,
				}[r.Type]}
			if r.Prefixed {
				a.Pattern = kmsg.ACLResourcePatternTypePrefixed
			}
			acls = append(acls, a)
		}
		k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, b.cfg.Topics.Input, b.cfg.Topics.Output, b.cfg.Topics.DLQ, b.cfg.Topics.Replay), kfake.EnableSASL(), kfake.EnableACLs(),
			kfake.Superuser("PLAIN", "admin", "admin"), kfake.User("PLAIN", "u", "p", acls...))
		require.NoError(t, err)
		b.cfg.Kafka.Brokers, b.cfg.Kafka.SASL = k.ListenAddrs()[0], config.SASL{Mechanism: config.Plain, Username: "u", Password: "p"}
		r := b.run(Options{})
		k.Close()
		require.Empty(t, r.Unreached)
		var lacks []string
		for _, f := range r.Findings {
			if f.Rule == "kafka-permissions" {
				lacks = append(lacks, strings.TrimPrefix(f.Found, "this Kafka user lacks "))
			}
		}
		if i < 0 {
			require.Empty(t, lacks)
		} else {
			require.Equal(t, []string{rules[i].String()}, lacks)
		}
		why := map[string]string{}
		for _, u := range r.Unchecked {
			why[u.Rule] = u.Why
		}
		require.Contains(t, why["cleanup-policy"], "needs DescribeConfigs on topic") // workers need not see settings
		require.Contains(t, why["transaction-timeout"], "needs DescribeConfigs on the cluster")
	}
}

// The clock's answer is bounded by the round trip.
func TestClock(t *testing.T) {
	b := setup(t)
	g := &gatherer{c: &b.cfg, log: zap.NewNop(), f: &Facts{Unknown: map[Part]string{}}}
	conn, err := g.session(context.Background())
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // a test's
	require.NoError(t, g.clock(b.ctx, conn))
	require.Positive(t, g.f.Database.SkewError)
	require.LessOrEqual(t, g.f.Database.Skew.Abs(), g.f.Database.SkewError+time.Millisecond, "the same clock")
}
