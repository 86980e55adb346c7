package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/exactly-pipeline/exactly/internal/transactions"
)

// required are the requests the protocol rests on, with the version of Kafka that brought them.
var required = []struct {
	key     kmsg.Key
	version int16
	since   string
	what    string
}{
	{kmsg.Metadata, 10, "2.8", "topic ids (KIP-516): a recreated topic would not be noticed"},
	{kmsg.OffsetFetch, 7, "2.5", "stable group offsets (KIP-447)"},
	{kmsg.TxnOffsetCommit, 3, "2.5", "offsets committed under a generation (KIP-447)"},
	{kmsg.InitProducerID, 3, "2.5", "producers that recover (KIP-360)"},
	{kmsg.LeaveGroup, 3, "2.4", "members removed by instance id"},
	{kmsg.JoinGroup, 5, "2.3", "static membership (KIP-345)"},
	{kmsg.OffsetForLeaderEpoch, 3, "2.3", "truncation found by leader epoch (KIP-320)"},
}

const (
	replicas       = 3
	leastOffsets   = 7 * 24 * 60 // minutes: Kafka's own default
	whyReplication = "With one replica a broker's disk is the data. With fewer than two in sync required, a write is acknowledged that a failing broker takes with it: "
)

var kafkaRules = []rule{
	{
		name: "kafka-version", severity: Error, needs: []Part{Kafka},
		why: "The guards rest on requests that older brokers don't have.",
		check: func(p *probe) {
			for _, b := range p.Brokers {
				for _, r := range required {
					if have, ok := b.Requests[int16(r.key)]; !ok || have < r.version {
						p.found(brokerName(b), "upgrade it to Kafka "+r.since+" or newer; 2.8 is the oldest that works", "%s (%s) lacks %s", brokerName(b), b.Guess, r.what)
						break
					}
				}
			}
		},
	},
	{
		name: "kafka-transactions-visible", severity: Warning, needs: []Part{Kafka},
		why: "`exactly txn`, which finds and ends transactions that hold readers back, needs requests of Kafka 3.0 (KIP-664).",
		check: func(p *probe) {
			for _, b := range p.Brokers {
				if _, ok := b.Requests[int16(kmsg.DescribeTransactions)]; !ok {
					p.found(brokerName(b), "upgrade it to Kafka 3.0 or newer", "%s (%s) does not tell of its transactions", brokerName(b), b.Guess)
				}
			}
		},
	},
	{
		name: "broker-count", severity: Development, needs: []Part{Kafka},
		why: "With fewer than three brokers nothing can be replicated so that one may fail and writes still be safe.",
		check: func(p *probe) {
			if len(p.Brokers) < replicas {
				p.found("", "run three brokers or more", "the cluster has %d", len(p.Brokers))
			}
		},
	},
	{
		name: "transaction-timeout", severity: Error, needs: []Part{Kafka, BrokerSettings},
		why: "A broker refuses a producer that asks for more: no worker would start.",
		check: func(p *probe) {
			ours := p.Settings.Kafka.TransactionTimeout
			for _, b := range p.Brokers {
				if most, ok := p.number(brokerName(b), b.Settings, "transaction.max.timeout.ms"); ok && ours.Milliseconds() > most {
					p.found(brokerName(b), fmt.Sprintf("set kafka.transaction_timeout to %v or less, or transaction.max.timeout.ms to %d or more", time.Duration(most)*time.Millisecond, ours.Milliseconds()),
						"kafka.transaction_timeout is %v, its transaction.max.timeout.ms %d", ours, most)
				}
			}
		},
	},
	{
		name: "session-timeout", severity: Error, needs: []Part{Kafka, BrokerSettings},
		why: "The group coordinator refuses a member whose session timeout is out of its bounds.",
		check: func(p *probe) {
			ours := p.Settings.Kafka.SessionTimeout
			for _, b := range p.Brokers {
				low, ok := p.number(brokerName(b), b.Settings, "group.min.session.timeout.ms")
				high, ok2 := p.number(brokerName(b), b.Settings, "group.max.session.timeout.ms")
				if ok && ours.Milliseconds() < low || ok2 && ours.Milliseconds() > high {
					p.found(brokerName(b), "set kafka.session_timeout to what lies between, or change the brokers' bounds", "kafka.session_timeout is %v, its bounds are %d and %d ms", ours, low, high)
				}
			}
		},
	},
	{
		name: "offsets-retention", severity: Warning, needs: []Part{Kafka, BrokerSettings},
		why: "The offsets of a group without members are deleted after this. Nothing is lost by it, but the next start has to read the output topics to their end.",
		check: func(p *probe) {
			for _, b := range p.Brokers {
				if m, ok := p.number(brokerName(b), b.Settings, "offsets.retention.minutes"); ok && m < leastOffsets {
					p.found(brokerName(b), fmt.Sprintf("set offsets.retention.minutes to %d or more", leastOffsets), "its offsets.retention.minutes is %d (%v)", m, time.Duration(m)*time.Minute)
				}
			}
		},
	},
	{
		name: "transaction-state-replication", severity: Error, needs: []Part{Kafka},
		why: whyReplication + "here, the decision that a transaction was committed.",
		check: func(p *probe) {
			p.internal("__transaction_state", "transaction.state.log.replication.factor", "transaction.state.log.min.isr")
		},
	},
	{
		name: "consumer-offsets-replication", severity: Error, needs: []Part{Kafka},
		why: whyReplication + "here, group offsets. One that has gone back stops its partition.",
		check: func(p *probe) {
			p.internal("__consumer_offsets", "offsets.topic.replication.factor", "min.insync.replicas")
		},
	},
	{
		name: "kafka-permissions", severity: Error, needs: []Part{Kafka},
		why: "A worker reads the input, reads the output topics back when a group offset is gone, writes to them in transactions, and is a member of the group.",
		check: func(p *probe) {
			for _, r := range p.Facts.Lacks {
				p.found("", "exactly setup --print-acls=worker --principal User:… prints what to run", "this Kafka user lacks %s", r)
			}
			for _, t := range p.ours() {
				if !t.Told {
					p.miss("what this Kafka user may do", "topic "+t.Name)
				}
			}
			if !p.Group.Told {
				p.miss("what this Kafka user may do", "group "+p.Settings.Group)
			}
		},
	},
	{
		name: "group-members", severity: Error, needs: []Part{Kafka, GroupMembers},
		why: "Whoever joins the group is given partitions, which no worker then reads; and what it commits is taken for a reset.",
		check: func(p *probe) {
			for _, m := range p.Group.Members {
				if m.Instance == "" || !strings.HasPrefix(m.Client, "exactly-") {
					p.found("group "+p.Settings.Group, "stop it, or give it a group of its own", "a member that is no worker: client %s at %s", m.Client, m.Host)
				}
			}
		},
	},
	{
		name: "open-transactions", severity: Warning, needs: []Part{Kafka, Transactions},
		why: "Readers with read_committed, workers among them, get nothing behind the first record of an open transaction.",
		check: func(p *probe) {
			for _, t := range p.Open {
				run := "exactly txn list; exactly txn abort " + t.ID
				where := []string{}
				for _, q := range t.Partitions {
					where = append(where, fmt.Sprintf("%s/%d", q.Topic, q.Partition))
				}
				if t.State == transactions.Hanging {
					if len(t.Partitions) > 0 {
						run = fmt.Sprintf("exactly txn list; exactly txn abort --topic %s --partition %d", t.Partitions[0].Topic, t.Partitions[0].Partition)
					}
					p.found(strings.Join(where, ", "), run, "a transaction of producer %d that no coordinator knows of hangs there", t.ProducerID)
				} else if t.Overdue {
					p.found(strings.Join(where, ", "), run, "a transaction of %s has been open for %v, longer than its timeout of %v", t.ID, time.Duration(*t.AgeMs)*time.Millisecond, time.Duration(*t.TimeoutMs)*time.Millisecond)
				} else if t.AheadMs != nil {
					p.found(strings.Join(where, ", "), run, "a transaction of %s began %v in the future: its coordinator's clock was ahead, and its timeout comes that much later",
						t.ID, time.Duration(*t.AheadMs)*time.Millisecond)
				}
			}
		},
	},
}

// weak is what a lack of replication is worth: as much as is said, on a cluster that could replicate.
func (p *probe) weak(s Severity) Severity {
	if len(p.Brokers) < replicas {
		return Development
	}
	return s
}

// internal looks at one of Kafka's own topics; while there is none yet, at the settings it will be made with.
func (p *probe) internal(topic, factor, minimum string) {
	run := "raise its replication to 3 (kafka-reassign-partitions.sh), then its min.insync.replicas to 2"
	if t := p.Internal[topic]; t != nil {
		if n := t.replication(); n < replicas {
			p.foundAs(p.weak(Error), topic, run, "it has partitions with %d replicas", n)
		}
		if n, ok := p.number(topic, t.Settings, "min.insync.replicas"); ok && n < 2 {
			p.foundAs(p.weak(Error), topic, run, "its min.insync.replicas is %d", n)
		}
		return
	}
	run = fmt.Sprintf("with three brokers or more, set %s to 3 and %s to 2 on each before it is made", factor, minimum)
	for _, b := range p.Brokers {
		n, ok := p.number(brokerName(b), b.Settings, factor)
		m, ok2 := p.number(brokerName(b), b.Settings, minimum)
		if ok && n < replicas || ok2 && m < 2 {
			p.foundAs(p.weak(Error), topic, run, "there is none yet, and %s would make it with %s and %s", brokerName(b), written(factor, n, ok), written(minimum, m, ok2))
		}
	}
}

func written(name string, n int64, known bool) string {
	if !known {
		return name + " (not told)"
	}
	return fmt.Sprintf("%s=%d", name, n)
}
