package acl

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/security"
)

// cluster is a broker that allows the user u just the rules given.
func cluster(t *testing.T, c *config.Config, rules []Rule) {
	t.Helper()
	var acls []kfake.ACL
	for _, r := range rules {
		a := kfake.ACL{Name: r.Name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: operations[r.Operation], Allow: true, Resource: map[Type]kmsg.ACLResourceType{
			Topic: kmsg.ACLResourceTypeTopic, Group: kmsg.ACLResourceTypeGroup, TransactionalID: kmsg.ACLResourceTypeTransactionalId,
		}[r.Type]}
		if r.Prefixed {
			a.Pattern = kmsg.ACLResourcePatternTypePrefixed
		}
		acls = append(acls, a)
	}
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, append(c.AllTopics(), c.Topics.Replay)...), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser("PLAIN", "admin", "admin"), kfake.User("PLAIN", "u", "p", acls...))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	c.Kafka.Brokers = k.ListenAddrs()[0]
	c.Kafka.SASL = config.SASL{Mechanism: config.Plain, Username: "u", Password: "p"}
}

func without(rules []Rule, i int) []Rule {
	return slices.Delete(slices.Clone(rules), i, i+1)
}

// Each rule that is taken away, and no other, is found missing by asking. Of transactional ids the brokers tell nothing.
func TestMissing(t *testing.T) {
	for _, role := range Roles {
		c := config.Defaults()
		rules := Rules(&c, role)
		for i := -1; i < len(rules); i++ {
			have, want := rules, []Rule(nil)
			if i >= 0 {
				have = without(rules, i)
				if rules[i].Type != TransactionalID {
					want = rules[i : i+1]
				}
			}
			t.Run(fmt.Sprint(role, "/", i), func(t *testing.T) {
				cluster(t, &c, have)
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				cl, err := security.NewClient(&c.Kafka)
				require.NoError(t, err)
				defer cl.Close()
				got, err := Missing(ctx, kadm.NewClient(cl), rules)
				require.NoError(t, err)
				if i >= 0 && rules[i].Operation == Describe && rules[i].Type == Topic {
					want = nil // Create alone does not let one see a topic: then everything of it is missing
					for _, r := range rules {
						if r.Name == rules[i].Name {
							want = append(want, r)
						}
					}
				}
				require.Equal(t, want, got)
			})
		}
	}
}

// A refusal names exactly what is missing where the brokers tell it, and what may be where they don't.
func TestExplain(t *testing.T) {
	c := config.Defaults()
	rules := Rules(&c, Worker)
	cluster(t, &c, without(rules, 3)) // Write on the DLQ
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := Explain(ctx, &c, Worker, fmt.Errorf("publish: %w", kerr.TopicAuthorizationFailed))
	require.ErrorContains(t, err, "we need Write on topic user_clicks_dlq (exactly setup --print-acls lists all): publish: TOPIC_AUTHORIZATION_FAILED")
	err = Explain(ctx, &c, Worker, kerr.TransactionalIDAuthorizationFailed)
	require.ErrorContains(t, err, "we need Write on transactional ids that begin with exactly- (")
	require.ErrorIs(t, err, kerr.TransactionalIDAuthorizationFailed)
	require.Equal(t, kerr.NotLeaderForPartition, Explain(ctx, &c, Worker, kerr.NotLeaderForPartition))
	require.NoError(t, Explain(ctx, &c, Worker, nil))
	undelivered := kafka.NewError(kafka.ErrInconsistent, "1 message(s) failed delivery", false)
	require.ErrorContains(t, Explain(ctx, &c, Worker, undelivered), "we need Write on topic user_clicks_dlq (")
	allowed := c
	allowed.Topics.DLQ = c.Topics.Output
	require.Equal(t, undelivered, Explain(ctx, &allowed, Worker, undelivered), "nothing is missing: it is something else")
	c.Kafka.Brokers = "127.0.0.1:1" // nobody to ask
	err = Explain(ctx, &c, Audit, kerr.GroupAuthorizationFailed)
	require.ErrorContains(t, err, "we need Describe on group exactly (")
}

// Names end up in a shell.
func TestCommand(t *testing.T) {
	r := Rule{Operation: Write, Type: TransactionalID, Name: "exactly-", Prefixed: true}
	require.Equal(t, "kafka-acls.sh --bootstrap-server a:1,b:2 --add --allow-principal User:x --operation Write --resource-pattern-type prefixed --transactional-id exactly-",
		r.Command("a:1,b:2", "User:x"))
	require.Contains(t, r.Command("a:1", "User:CN=it's; rm -rf /"), `--allow-principal 'User:CN=it'\''s; rm -rf /' `)
}

// Other names in the settings are other names in the rules.
func TestRulesFollowSettings(t *testing.T) {
	c := config.Defaults()
	c.Group, c.Topics, c.Ledger.HeadsTopic = "g", config.Topics{Input: "in", Output: "out", DLQ: "dlq", Replay: "replay"}, "heads"
	for _, role := range Roles {
		for _, r := range Rules(&c, role) {
			require.Contains(t, []string{"in", "out", "dlq", "heads", "g", "g-", "replay", "g-replay"}, r.Name)
			require.False(t, strings.Contains(r.String(), "user_clicks"))
		}
	}
}

// doc/operations.md lists them all, and no other.
func TestDocumentListsRules(t *testing.T) {
	b, err := os.ReadFile("../../doc/operations.md")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(b), "| role | operation | resource | | what for |\n|---|---|---|---|---|\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	c := config.Defaults()
	var want []string
	for _, role := range Roles {
		for _, r := range Rules(&c, role) {
			name := "`" + r.Name + "`"
			if r.Prefixed {
				name += " and what begins so"
			}
			want = append(want, fmt.Sprintf("| %s | %s | %s | %s | %s |", role, r.Operation, strings.ReplaceAll(string(r.Type), "-", " "), name, r.Why))
		}
	}
	require.Equal(t, want, strings.Split(table, "\n"))
}
