package conformance

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var stableRules = []rule{
	{"pending-is-unstable", "a group offset that an open transaction is about to change is no offset (guard 4): else the drain publishes what is about to be committed", pendingIsUnstable, wire},
	{"pending-is-per-partition", "a claim waits for the transactions that hold its own partition, not for those of workers that go on elsewhere", pendingIsPerPartition, wire},
	{"all-offsets-hide-pending", "group offsets are asked for by partition: an answer for all of them leaves out a first offset that is pending, as if there were none", allOffsetsHidePending, wire},
	{"pending-without-members", "somebody outside who looks at a group nobody is in any more must see that its first offset is pending", pendingWithoutMembers, wire},
	{"unset-is-no-error", "a first start finds no group at all: that is an answer, not an error", unsetIsNoError, wire},
	{"admin-commit-needs-empty-group", "people's commands commit in a transaction, since a plain commit from outside is refused while workers run", adminCommit, wire},
}

func pendingIsUnstable(w *world) {
	w.topics(1)
	w.joinRaw("", 30*time.Second, 0)
	w.is("before", "none", w.group(0))
	o := w.pending("a", 0, 3)
	w.is("a first offset pending", "pending", w.group(0))
	w.is("without asking for stable", "none", w.unstable(0))
	w.is("commit", "ok", o.end(true))
	w.is("committed", "3", w.settled(0))
	w.is("added to the next", "ok", o.addOffsets())
	w.is("before the next stages anything", "3", w.group(0))
	w.is("staged", "ok", o.stage(outsider, 0, 9))
	w.is("another pending", "pending", w.group(0))
	w.is("without asking for stable, the old one", "3", w.unstable(0))
	w.is("abort", "ok", o.end(false))
	w.is("aborted", "3", w.settled(0))
	look := w.look(-1)
	w.is("a claim's look", "3 true", fmt.Sprint(look.Offset, " ", look.Ours))
}

// unstable is the group's offset as somebody reads it who does not ask for a stable one.
func (w *world) unstable(partition int32) string {
	w.t.Helper()
	got := w.fetchOffsets(false, []int32{partition})
	return got[partition]
}

// fetchOffsets is OffsetFetch, of the partitions named or of all (nil).
func (w *world) fetchOffsets(stable bool, partitions []int32) map[int32]string {
	w.t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group, req.RequireStable = w.cfg.Group, stable
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = w.cfg.Group
	if partitions != nil {
		t := kmsg.NewOffsetFetchRequestTopic()
		t.Topic, t.Partitions = w.cfg.Topics.Input, partitions
		req.Topics = append(req.Topics, t)
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.Partitions = w.cfg.Topics.Input, partitions
		g.Topics = append(g.Topics, gt)
	} else {
		g.Topics = nil
	}
	req.Groups = append(req.Groups, g)
	res, err := req.RequestWith(w.soon(), w.raw)
	require.NoError(w.t, err)
	require.Len(w.t, res.Groups, 1)
	out := map[int32]string{}
	if c := res.Groups[0].ErrorCode; c != 0 {
		out[-1] = code(c)
	}
	for _, t := range res.Groups[0].Topics {
		for _, p := range t.Partitions {
			switch {
			case p.ErrorCode != 0:
				out[p.Partition] = code(p.ErrorCode)
			case p.Offset < 0:
				out[p.Partition] = "none"
			default:
				out[p.Partition] = fmt.Sprint(p.Offset)
			}
		}
	}
	return out
}

func pendingIsPerPartition(w *world) {
	w.topics(3)
	first := w.pending("a", 1, 4)
	w.is("commit", "ok", first.end(true))
	w.is("committed", "4", w.settled(1))
	o := w.pending("a", 0, 3)
	w.is("the partition itself", "pending", w.group(0))
	w.is("another one, committed", "4", w.group(1))
	w.is("another one, never committed", "none", w.group(2))
	w.is("all three in one answer", "map[0:UNSTABLE_OFFSET_COMMIT 1:4 2:none]", w.fetchOffsets(true, []int32{0, 1, 2}))
	w.is("abort", "ok", o.end(false))
	w.is("afterwards", "none 4 none", w.settled(0)+" "+w.settled(1)+" "+w.settled(2))
}

func allOffsetsHidePending(w *world) {
	w.topics(2)
	first := w.pending("a", 1, 4)
	require.Equal(w.t, "ok", first.end(true))
	w.is("committed", "4", w.settled(1))
	o := w.pending("a", 0, 3)
	w.is("all, while a first offset is pending", "map[1:4]", w.fetchOffsets(true, nil))
	w.is("by partition", "map[0:UNSTABLE_OFFSET_COMMIT 1:4]", w.fetchOffsets(true, []int32{0, 1}))
	w.is("commit", "ok", o.end(true))
	w.is("committed", "3", w.settled(0))
	w.is("all, afterwards", "map[0:3 1:4]", w.fetchOffsets(true, nil))
}

func pendingWithoutMembers(w *world) {
	w.topics(1)
	o := w.pending("a", 0, 3)
	w.is("a first offset pending", "pending", w.group(0))
	w.is("commit", "ok", o.end(true))
	w.is("committed", "3", w.settled(0))
	o = w.pending("a", 0, 5)
	w.is("another pending", "pending", w.group(0))
	w.is("abort", "ok", o.end(false))
	w.is("aborted", "3", w.settled(0))
}

func unsetIsNoError(w *world) {
	w.topics(1)
	w.is("by partition", "map[0:none]", w.fetchOffsets(true, []int32{0}))
	w.is("all", "map[]", w.fetchOffsets(true, nil))
	look := w.look(-1)
	w.is("a claim's look", "false", fmt.Sprint(look.HasOffset))
	members := w.members()
	w.is("members", 0, len(members))
}

func adminCommit(w *world) {
	w.topics(1)
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: w.cfg.Topics.Input, Partition: 0, At: 2, LeaderEpoch: -1})
	plain := func() string {
		res, err := w.kadm.CommitOffsets(w.soon(), w.cfg.Group, os)
		require.NoError(w.t, err)
		return name(res.Error())
	}
	w.is("plain, no member", "ok", plain())
	w.joinRaw("", 30*time.Second, 0)
	w.is("plain, with a member", "UNKNOWN_MEMBER_ID", plain())
	o := w.pending("outside", 0, 7)
	w.is("in a transaction, with a member", "ok", o.end(true))
	w.is("group offset", "7", w.settled(0))
}
