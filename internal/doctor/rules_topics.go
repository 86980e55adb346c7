package doctor

import (
	"fmt"
	"math"
	"strings"
	"time"
)

const leastRetention = 72 * time.Hour // of the input: a weekend

var topicRules = []rule{
	{
		name: "topic-missing", severity: Error, needs: []Part{Kafka},
		why: "A worker does not start without its topics, and none is ever created by its first use.",
		check: func(p *probe) {
			for _, name := range p.names() {
				if p.Topics[name] == nil {
					p.found(name, "exactly setup", "topic %s does not exist, or this Kafka user may not see it", name)
				}
			}
			if name := p.Settings.Topics.Replay; name != "" && p.Topics[name] == nil {
				p.found(name, "exactly setup", "topic %s does not exist, or this Kafka user may not see it: dead letters can't be replayed", name)
			}
		},
	},
	{
		name: "topic-identity", severity: Error, needs: []Part{Kafka, Postgres, Tables, SourceRow},
		why: "Offsets of another cluster or of a recreated topic mean other records: a worker refuses to start.",
		check: func(p *probe) {
			s := p.Database.Source
			if s == nil {
				return
			}
			if s.ClusterID != p.ClusterID {
				p.found("kafka.brokers", "point kafka.brokers or postgres.dsn at the right ones; or exactly setup --accept-recreated REASON", "the cluster is %s, the database belongs to %s", p.ClusterID, s.ClusterID)
			}
			for _, name := range p.names() {
				if t := p.Topics[name]; t != nil && s.TopicIDs[name] != t.ID {
					p.found(name, "see doc/failures.md, \"A topic was recreated\"", "its topic id is %s, the database knows %s", t.ID, s.TopicIDs[name])
				}
			}
		},
	},
	{
		name: "topic-partitions", severity: Warning, needs: []Part{Kafka},
		why: "Consumers that join the topics by partition rely on the same number. Order by key holds in any case.",
		check: func(p *probe) {
			in := p.Topics[p.Settings.Topics.Input]
			for _, t := range p.outputs() {
				if in != nil && len(t.Partitions) != len(in.Partitions) {
					p.found(t.Name, fmt.Sprintf("kafka-topics.sh --alter --topic %s --partitions %d (only upwards; with the workers stopped)", t.Name, len(in.Partitions)), "it has %d partitions, the input %d", len(t.Partitions), len(in.Partitions))
				}
			}
		},
	},
	{
		name: "topic-replication", severity: Error, needs: []Part{Kafka},
		why: "With one replica a broker's disk is the data; with two, any maintenance leaves one.",
		check: func(p *probe) {
			for _, t := range p.ours() {
				n := t.replication()
				run := "raise it to 3 with kafka-reassign-partitions.sh"
				if n == 1 {
					p.foundAs(p.weak(Error), t.Name, run, "it has partitions with a single replica")
				} else if n < replicas {
					p.foundAs(p.weak(Warning), t.Name, run, "it has partitions with %d replicas", n)
				}
			}
		},
	},
	{
		name: "topic-in-sync", severity: Error, needs: []Part{Kafka},
		why: "A partition without a leader can be neither read nor written; one that lacks replicas has less to lose than it seems.",
		check: func(p *probe) {
			for _, t := range p.ours() {
				var leaderless, behind []string
				for _, q := range t.Partitions {
					if q.Leader < 0 {
						leaderless = append(leaderless, fmt.Sprint(q.ID))
					} else if q.InSync < q.Replicas {
						behind = append(behind, fmt.Sprint(q.ID))
					}
				}
				if len(leaderless) > 0 {
					p.found(t.Name, "bring the brokers back that hold them", "no leader: partitions %s", strings.Join(leaderless, ", "))
				}
				if len(behind) > 0 {
					p.foundAs(Warning, t.Name, "bring the brokers back, and wait until they have caught up", "replicas out of sync: partitions %s", strings.Join(behind, ", "))
				}
			}
		},
	},
	{
		name: "min-insync-replicas", severity: Error, needs: []Part{Kafka, TopicSettings},
		why: whyReplication + "clicks, or their events. As many as there are replicas, and no broker may ever be down.",
		check: func(p *probe) {
			for _, t := range p.ours() {
				n, ok := p.number(t.Name, t.Settings, "min.insync.replicas")
				run := "kafka-configs.sh --alter --entity-type topics --entity-name " + t.Name + " --add-config min.insync.replicas=2"
				if t.replication() < replicas { // two of two, or of one, would stop the writers
					run = "first its replication (topic-replication), then: " + run
				}
				if ok && n < 2 {
					p.foundAs(p.weak(Error), t.Name, run, "its min.insync.replicas is %d", n)
				} else if ok && n >= int64(t.replication()) {
					p.foundAs(Warning, t.Name, run, "its min.insync.replicas is %d, and it has partitions with %d replicas", n, t.replication())
				}
			}
		},
	},
	{
		name: "unclean-leader-election", severity: Error, needs: []Part{Kafka, TopicSettings},
		why: "A replica that lacks acknowledged records may become leader: records captured are replaced by others at the same offsets, and the partition stops (KIP-320).",
		check: func(p *probe) {
			all := p.ours()
			for _, t := range p.Internal {
				all = append(all, t)
			}
			for _, t := range all {
				if v, ok := p.setting(t.Name, t.Settings, "unclean.leader.election.enable"); ok && v == "true" {
					p.found(t.Name, "kafka-configs.sh --alter --entity-type topics --entity-name "+t.Name+" --add-config unclean.leader.election.enable=false", "its unclean.leader.election.enable is true")
				}
			}
		},
	},
	{
		name: "cleanup-policy", severity: Error, needs: []Part{Kafka, TopicSettings},
		why: "Compaction deletes records by key: clicks before they are read, and events that the audit and a scan for a lost group offset need.",
		check: func(p *probe) {
			for _, t := range p.ours() {
				if v, ok := p.setting(t.Name, t.Settings, "cleanup.policy"); ok && v != "delete" {
					p.found(t.Name, "kafka-configs.sh --alter --entity-type topics --entity-name "+t.Name+" --add-config cleanup.policy=delete", "its cleanup.policy is %q", v)
				}
			}
		},
	},
	{
		name: "input-retention", severity: Warning, needs: []Part{Kafka, TopicSettings},
		why: "Clicks that expire before they are read are lost: this is how long everything may stand still.",
		check: func(p *probe) {
			t := p.Topics[p.Settings.Topics.Input]
			if t == nil {
				return
			}
			alter := "kafka-configs.sh --alter --entity-type topics --entity-name " + t.Name + " --add-config "
			if ms, ok := p.number(t.Name, t.Settings, "retention.ms"); ok && ms >= 0 && ms < leastRetention.Milliseconds() {
				p.found(t.Name, alter+"retention.ms=604800000", "it keeps clicks for %s", days(ms))
			}
			if n, ok := p.number(t.Name, t.Settings, "retention.bytes"); ok && n >= 0 {
				p.found(t.Name, alter+"retention.bytes=-1", "it keeps %d bytes a partition, however short a time that is", n)
			}
		},
	},
	{
		name: "output-retention", severity: Warning, needs: []Part{Kafka, TopicSettings},
		why: "Where a group offset is gone, the last event of each input partition is looked for in the output topics; where Postgres has gone back in time, what it lacks is only there.",
		check: func(p *probe) {
			in := p.Topics[p.Settings.Topics.Input]
			if in == nil {
				return
			}
			least, ok := p.number(in.Name, in.Settings, "retention.ms")
			for _, t := range p.outputs() {
				if ms, ok2 := p.number(t.Name, t.Settings, "retention.ms"); ok && ok2 && ms >= 0 && (least < 0 || ms < least) {
					p.found(t.Name, fmt.Sprintf("kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config retention.ms=%d", t.Name, least), "it keeps events for %s, the input keeps clicks for %s", days(ms), days(least))
				}
			}
		},
	},
	{
		name: "heads-retention", severity: Error, needs: []Part{Kafka, TopicSettings},
		why: "The heads of the ledger's chains are Kafka's word against a ledger rewritten in Postgres: what expires vouches for nothing.",
		check: func(p *probe) {
			t := p.Topics[p.Settings.Ledger.HeadsTopic]
			if t == nil {
				return
			}
			alter := "kafka-configs.sh --alter --entity-type topics --entity-name " + t.Name + " --add-config "
			if ms, ok := p.number(t.Name, t.Settings, "retention.ms"); ok && ms >= 0 {
				p.found(t.Name, alter+"retention.ms=-1", "it keeps heads for %s", days(ms))
			}
			if n, ok := p.number(t.Name, t.Settings, "retention.bytes"); ok && n >= 0 {
				p.found(t.Name, alter+"retention.bytes=-1", "it keeps %d bytes a partition", n)
			}
		},
	},
	{
		name: "output-timestamps", severity: Error, needs: []Part{Kafka, TopicSettings},
		why: "An event carries its click's timestamp. A topic that refuses what the input took makes every publish fail, for good; one that stamps records itself makes the two sinks differ.",
		check: func(p *probe) {
			in := p.Topics[p.Settings.Topics.Input]
			for _, t := range p.outputs() {
				alter := "kafka-configs.sh --alter --entity-type topics --entity-name " + t.Name + " --add-config "
				if v, ok := p.setting(t.Name, t.Settings, "message.timestamp.type"); ok && v != "CreateTime" {
					p.found(t.Name, alter+"message.timestamp.type=CreateTime", "its message.timestamp.type is %s", v)
				}
				if in == nil {
					continue
				}
				// A click taken just within the input's bound may be published as late as the input keeps it.
				before, ok := p.bound(t, "before")
				least, ok2 := p.bound(in, "before")
				kept, ok3 := p.number(in.Name, in.Settings, "retention.ms")
				if ok && ok2 && ok3 && before < sum(least, kept) {
					p.found(t.Name, alter+fmt.Sprintf("message.timestamp.before.max.ms=%d", sum(least, kept)), "it refuses timestamps more than %s old; the input takes them up to %s old, and keeps them for %s", span(before), span(least), days(kept))
				}
				after, ok := p.bound(t, "after")
				if least, ok2 := p.bound(in, "after"); ok && ok2 && after < least {
					p.found(t.Name, alter+fmt.Sprintf("message.timestamp.after.max.ms=%d", least), "it refuses timestamps more than %s ahead, the input %s", span(after), span(least))
				}
			}
		},
	},
	{
		name: "message-size", severity: Error, needs: []Part{Kafka, TopicSettings},
		why: "An event is its click with a country and headers, a dead letter its record with headers: what the input takes and an output topic refuses makes every publish fail, for good.",
		check: func(p *probe) {
			in := p.Topics[p.Settings.Topics.Input]
			for _, t := range p.outputs() {
				if in == nil {
					continue
				}
				most, ok := p.number(t.Name, t.Settings, "max.message.bytes")
				if least, ok2 := p.number(in.Name, in.Settings, "max.message.bytes"); ok && ok2 && most < least {
					p.found(t.Name, fmt.Sprintf("kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config max.message.bytes=%d", t.Name, least), "its max.message.bytes is %d, the input's %d", most, least)
				}
			}
		},
	},
}

// bound is how far a topic lets timestamps be off, in ms. Before Kafka 3.6 one setting was for both ways.
func (p *probe) bound(t *Topic, way string) (int64, bool) {
	if _, old := t.Settings["message.timestamp.difference.max.ms"]; old && t.Settings["message.timestamp."+way+".max.ms"] == "" {
		return p.number(t.Name, t.Settings, "message.timestamp.difference.max.ms")
	}
	return p.number(t.Name, t.Settings, "message.timestamp."+way+".max.ms")
}

// sum adds spans in ms, of which the largest number, and a negative retention, mean no bound.
func sum(a, b int64) int64 {
	if b < 0 || a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func span(ms int64) string {
	if ms == math.MaxInt64 {
		return "any time"
	}
	return days(ms)
}
