package conformance

// Stacks that share a difference.
var (
	onEmbedded = []string{"embedded"}
	onApicurio = []string{"kafka", "kafka3"}
)

// withConfluent are all stacks, with librdkafka.
var withConfluent = []string{"embedded/confluent", "kafka/confluent", "kafka3/confluent"}

const unstable = "UNSTABLE_OFFSET_COMMIT"

// differs are the known differences. doc/protocol.md tells of each.
var differs = []difference{
	{onEmbedded, "pending-is-per-partition", "another one, committed", "pending",
		"*unstable* is group-wide: a claim waits for a moment in which no worker has offsets in an open transaction"},
	{onEmbedded, "pending-is-per-partition", "another one, never committed", "pending", "likewise"},
	{onEmbedded, "pending-is-per-partition", "all three in one answer", "map[0:" + unstable + " 1:" + unstable + " 2:" + unstable + "]", "likewise"},
	{onEmbedded, "all-offsets-hide-pending", "all, while a first offset is pending", "map[1:" + unstable + "]", "likewise; the pending one is left out here, too"},
	{onEmbedded, "all-offsets-hide-pending", "by partition", "map[0:" + unstable + " 1:" + unstable + "]", "likewise"},
	{onEmbedded, "pending-without-members", "a first offset pending", "none",
		"a group without members or commits does not exist, whatever is pending for it. Workers look as members; a command that looks after the last has left may take the first offset for none"},
	{onEmbedded, "unset-is-no-error", "by partition", "map[-1:GROUP_ID_NOT_FOUND]", "taken for no offset (`internal/admin/outside.go: GroupOffsets`)"},
	{onEmbedded, "unset-is-no-error", "all", "map[-1:GROUP_ID_NOT_FOUND]", "likewise"},
	{onEmbedded, "fenced-stays-fenced", "ask for the next epoch", "ok",
		"a fenced producer that asks for the next epoch of its own gets it, and fences its successor. librdkafka asks only after an abortable error, never once it was fenced"},
	{onEmbedded, "fenced-stays-fenced", "the rightful one thereafter", "PRODUCER_FENCED", "likewise; the successor makes a new producer, claims again, and goes on"},
	{onEmbedded, "generation-fences", "member without generation", "ok", "nothing of ours sends it"},
	{onEmbedded, "generation-fences", "generation without member", "ok", "nothing of ours sends it"},
	{onEmbedded, "static-return-is-quiet", "in the same generation", "false",
		"a member that returns with other owned partitions than it joined with sets off a rebalance in which nothing moves: the others' metadata is renewed, once more than needed"},
	{onEmbedded, "timestamps-kept", "two hours ahead", "ok", "Apache Kafka refuses what is more than an hour ahead (message.timestamp.after.max.ms), in the input before the outputs"},
	{onEmbedded, "open-transactions-are-listed", "the group's offsets are, too", "false", "a transaction that holds nothing but group offsets is listed without partitions"},
	{onEmbedded, "open-transactions-are-listed", "described when committed", "ok Empty", "how the last one ended is not told"},
	{onEmbedded, "open-transactions-are-listed", "at the partition when committed", "not there", "only producers with an open transaction are described"},
	{withConfluent, "a-megabyte-arrives", "the next", "abortable",
		"librdkafka has given away sequence numbers that never reached the broker, and notices only in the next transaction: that one is aborted, too, and the one after it goes through"},

	{onEmbedded, "incompatible-is-refused", "asked: another type", "true", "compatibility is kept as a setting and never checked: what a schema change does to readers is tried on a real registry"},
	{onEmbedded, "incompatible-is-refused", "asked: a field without default", "true", "likewise"},
	{onEmbedded, "incompatible-is-refused", "the registry's answer", "ok", "likewise"},
	{onEmbedded, "incompatible-is-refused", "registered", "new", "likewise"},
	{onEmbedded, "no-schema-is-refused", "no type", "new", "any JSON is taken for a schema; records written with such an id become dead letters"},
	{onEmbedded, "no-schema-is-refused", "an unknown name", "new", "likewise"},
	{onEmbedded, "references-come-along", "deleting what is referred to", "42201", "refused all the same, with another code"},
	{onEmbedded, "deleted-is-still-decoded", "registered anew", "transient 0", "a subject deleted softly can't be registered again: delete it for good first"},
	{onEmbedded, "deleted-for-good", "an id of nobody else's", "there still", "an id once given is known for ever"},
	{onEmbedded, "deleted-for-good", "for good without softly first", "ok", "nothing of ours deletes a schema"},
	{onApicurio, "layout-is-no-difference", "in another layout", "new", "the same schema in another layout is another version with another id; both are read"},
	{onApicurio, "layout-is-no-difference", "its id", "false", "likewise"},
	{onApicurio, "compatibility-is-by-subject", "of all, as it comes", "NONE", "nothing is refused until somebody sets a level, for a subject or for all"},
}
