package heal

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/franz"
	"github.com/exactly-pipeline/exactly/internal/offsets"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/txn"
)

// Kafka publishes again, from the outbox, what the output topics lack of what was published: they were lost, recreated, or have lost a part. A
// topic that is gone is made. What an owner still has to publish is left to it. What replays of dead letters published comes after the input's.
//
// What could be done was done, also on an error. Run again, it finds what is there, and publishes the rest.
func Kafka(ctx context.Context, c *config.Config, o Options, log *zap.Logger) ([]Done, error) {
	done, err := healKafka(ctx, c, o, log)
	if err != nil {
		return done, err
	}
	replays, err := kafkaReplays(ctx, c, o, log)
	return append(done, replays...), err
}

// healKafka does it for one source.
func healKafka(ctx context.Context, c *config.Config, o Options, log *zap.Logger) ([]Done, error) {
	h, err := start(ctx, c, o, log)
	if err != nil {
		return nil, fmt.Errorf("heal kafka: %w", err)
	}
	defer h.close()
	k := &kafka{healer: h, topics: map[string]*output{}}
	done, err := k.run(ctx)
	if err != nil {
		err = fmt.Errorf("heal kafka: %w", err)
	}
	return done, err
}

// kafka is one heal of the output topics under way.
//
// The partitions are held; then what earlier producers of this kind have left open is aborted; then the topics are read to their stable end; then
// what is in the outbox below the group offset and was not found is published, in the order of source offsets, in transactions of bounded size.
// An owner that has captured before the hold would publish from the group offset up: nothing that is published here, but perhaps before it. So where a
// topic is another one, owners are fenced once all is held.
type kafka struct {
	*healer
	topics map[string]*output
	heads  output // the topic of ledger heads: what it had can't be had again, the newest can
	parts  []*owed
	reach  reach
	p      txn.Producer
}

// output is an output topic.
type output struct {
	name       string
	was, is    string // topic ids; is is empty if it is gone
	partitions int
	starts     map[int32]int64
	seen       map[[2]int32]seen // of each source partition (second) in each of its partitions (first)
}

// seen are the first and the last source offset.
type seen struct{ first, last int64 }

// owed is one source partition and what the topics owe of it.
type owed struct {
	offsets.Partition
	group admin.GroupOffset
	upTo  int64 // below it everything was published once
	low   int64 // from here on the outbox has it
	found map[string]*found
	held  *offsets.Held
	rests string // why it is held: by a heal of this kind that was killed

	missing  map[string]int64 // to be published again, by topic
	disorder int64            // of them: later ones are there already
	expired  int64            // by the topic's own retention
	beyond   int64            // the outbox's retention
	erased   int64
	sent     int64
	late     map[string]stretch // of each topic what was, or is to be, published behind later ones
}

// stretch is the source offsets [from, to).
type stretch struct{ from, to int64 }

// lateIn notes that the event of an offset stands behind later ones.
func (p *owed) lateIn(topic string, offset int64) {
	if p.late == nil {
		p.late = map[string]stretch{}
	}
	s, ok := p.late[topic]
	if !ok {
		s.from = offset
	}
	p.late[topic] = stretch{min(s.from, offset), max(s.to, offset+1)}
}

func (h *kafka) run(ctx context.Context) (done []Done, err error) {
	if err := h.identify(ctx); err != nil {
		return nil, err
	}
	defer func() { done, err = h.end(ctx, err) }()
	if err := h.hold(ctx); err != nil {
		return nil, err
	}
	if err := h.scan(ctx); err != nil {
		return nil, fmt.Errorf("read the output topics: %w", err)
	}
	if err := h.compare(ctx); err != nil || h.o.DryRun {
		return nil, err
	}
	for _, p := range h.parts {
		if err := h.publish(ctx, p); err != nil {
			return nil, err
		}
	}
	if err := h.record(ctx); err != nil {
		return nil, err
	}
	if err := h.repost(ctx); err != nil {
		return nil, err
	}
	failpoint.Hit(failpoint.HealRecorded)
	return nil, nil
}

// identify makes sure that the cluster and the input are those of the source, and makes output topics that are gone.
func (h *kafka) identify(ctx context.Context) error {
	a, t := h.desk.Admin(), h.cfg.Topics
	cluster, err := a.Cluster(ctx)
	if err != nil {
		return err
	}
	ids, err := a.TopicIDs(ctx)
	if err != nil {
		return err
	}
	src := h.desk.Source()
	input := txn.Source{Topic: t.Input, ClusterID: src.ClusterID, TopicIDs: map[string]string{t.Input: src.TopicIDs[t.Input]}}
	if err := input.Matches(cluster, ids); err != nil {
		return fmt.Errorf("another cluster or input is another source, and its offsets mean something else: %w", err)
	}
	heads := h.cfg.Ledger.HeadsTopic
	if !h.o.DryRun && (ids[t.Output] == "" || ids[t.DLQ] == "" || heads != "" && ids[heads] == "") {
		made, err := provision.Topics(ctx, &h.cfg, a)
		for _, line := range made {
			h.log.Info(line)
		}
		if err != nil {
			return err
		}
		if ids, err = a.TopicIDs(ctx); err != nil {
			return err
		}
	}
	partitions, err := a.Partitions(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{t.Output, t.DLQ} {
		h.topics[name] = &output{name: name, was: src.TopicIDs[name], is: ids[name], partitions: partitions[name], starts: map[int32]int64{}, seen: map[[2]int32]seen{}}
	}
	h.heads = output{name: heads, was: src.TopicIDs[heads], is: ids[heads]}
	return nil
}

// headless says that the topic of ledger heads is another one than the source was set up with.
func (h *kafka) headless() bool { return h.heads.name != "" && h.heads.was != h.heads.is }

// recreated says whether a topic is another one than the source was set up with.
func (h *kafka) recreated() bool {
	for _, t := range h.topics {
		if t.was != t.is {
			return true
		}
	}
	return false
}

// rested says that a heal of this kind was killed and has left its holds: what it published is in no ledger yet.
func (h *kafka) rested() bool {
	return slices.ContainsFunc(h.parts, func(p *owed) bool { return p.rests != "" })
}

// hold reads where the partitions are and holds them.
func (h *kafka) hold(ctx context.Context) error {
	rows, err := h.desk.Partitions(ctx)
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		p := &owed{Partition: rows[id], found: map[string]*found{}, missing: map[string]int64{}}
		if p.Held && strings.HasPrefix(p.HeldWhy, offsets.Healing+"kafka") {
			p.rests = p.HeldWhy
		}
		h.parts = append(h.parts, p)
	}
	if h.o.DryRun {
		return h.positions(ctx)
	}
	for _, p := range h.parts {
		if p.held, err = h.desk.Seize(ctx, p.ID, "kafka", h.o.Reason, 0); err != nil {
			return err
		}
		p.Next = p.held.Next()
	}
	if err := h.fenceOwners(ctx); err != nil {
		return err
	}
	// Only now: what an earlier heal had open is decided when the topics are read.
	cfg := h.cfg
	cfg.Worker.ID = admin.HealID
	limit, err := h.desk.Admin().MaxMessageBytes(ctx)
	if err != nil {
		return err
	}
	if h.p, err = franz.NewProducer(&cfg, limit, h.log); err != nil {
		return err
	}
	init, cancel := context.WithTimeout(ctx, h.cfg.Kafka.TransactionTimeout)
	defer cancel()
	if err := h.p.Init(init); err != nil {
		return fmt.Errorf("init transactions: %w", err)
	}
	return h.positions(ctx)
}

// positions reads the group offsets, and from where on the outbox has what was published.
func (h *kafka) positions(ctx context.Context) error {
	ids := make([]int32, len(h.parts))
	for i, p := range h.parts {
		ids[i] = p.ID
	}
	group, err := h.desk.Stable(ctx, ids, !h.o.DryRun)
	if err != nil {
		return err
	}
	if err := h.reach.read(ctx, h.desk.DB()); err != nil {
		return err
	}
	if h.o.DryRun { // read behind the group: workers go on
		rows, err := h.desk.Partitions(ctx)
		if err != nil {
			return err
		}
		for _, p := range h.parts {
			p.Partition = rows[p.ID]
		}
	}
	for _, p := range h.parts {
		p.group = group[p.ID]
		if p.group.Has && p.group.Ours && p.group.Offset > p.Next {
			return refuse(p.ID, "the group offset %d is above the stored offset %d: Postgres lacks what Kafka had; first, exactly heal postgres --reason …", p.group.Offset, p.Next)
		}
		if p.low, p.beyond, err = h.reach.of(ctx, h.desk.DB(), h.desk.Source().ID, &p.Partition); err != nil {
			return err
		}
		for name := range h.topics {
			p.found[name] = &found{base: p.low}
		}
	}
	return nil
}

// scan reads the topics to their stable end and notes what is there.
func (h *kafka) scan(ctx context.Context) error {
	var there []string
	for _, t := range h.topics {
		if t.is != "" {
			there = append(there, t.name)
		}
	}
	if len(there) > 0 {
		starts, ends, err := h.desk.Admin().LogRange(ctx, there...)
		if err != nil {
			return err
		}
		all := spans{}
		ends.Each(func(e kadm.ListedOffset) {
			s, _ := starts.Lookup(e.Topic, e.Partition)
			h.topics[e.Topic].starts[e.Partition] = s.Offset
			all.add(e.Topic, e.Partition, s.Offset, e.Offset)
		})
		parts := map[int32]*owed{}
		for _, p := range h.parts {
			parts[p.ID] = p
		}
		err = h.read(ctx, all, func(r *kgo.Record) error {
			id, offset, ok := h.coordinates(r)
			p := parts[id]
			if !ok || p == nil {
				return nil
			}
			if offset >= p.Next && !h.o.DryRun { // held: it stands still
				return refuse(id, "%s is an event of offset %d, and the stored offset is %d: Postgres lacks what Kafka has; first, exactly heal postgres --reason …",
					where(r.Topic, r.Partition, r.Offset), offset, p.Next)
			}
			p.found[r.Topic].add(offset)
			t := h.topics[r.Topic]
			s, ok := t.seen[[2]int32{r.Partition, id}]
			if !ok {
				s.first = offset
			}
			if ok && offset < s.last && p.rests != "" && h.o.OutOfOrder { // by the one that was killed
				p.lateIn(r.Topic, offset)
			}
			s.first, s.last = min(s.first, offset), max(s.last, offset)
			t.seen[[2]int32{r.Partition, id}] = s
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, p := range h.parts {
		if p.group.Has && p.group.Ours {
			p.upTo = p.group.Offset
			continue
		}
		// Nobody knows how far it was published. The next owner drains from the last event there is in either topic: below that nothing may be missing.
		p.upTo = max(p.Floor, p.Begin)
		for _, f := range p.found {
			p.upTo = max(p.upTo, f.end)
		}
	}
	return nil
}

// fenceOwners ends, where a topic is another one, the producers of whoever may own a partition, alive or not. The hold stops captures and claims, not
// a publish of what was captured before: that would come into the new topic before what is published here. A worker that is fenced so begins anew, with
// claims, which find the hold.
func (h *kafka) fenceOwners(ctx context.Context) error {
	if !h.recreated() {
		return nil
	}
	rows, err := h.desk.DB().Query(ctx, `SELECT DISTINCT w FROM partition_offsets, unnest(claimants || worker) AS w WHERE source_id = $1 AND w <> ''`, h.desk.Source().ID)
	if err != nil {
		return fmt.Errorf("read who owns the partitions: %w", err)
	}
	workers, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read who owns the partitions: %w", err)
	}
	for _, w := range workers {
		if err := h.desk.Admin().Fence(ctx, h.cfg.TransactionalID(w), h.cfg.Kafka.TransactionTimeout); err != nil {
			return fmt.Errorf("fence worker %s: %w", w, err)
		}
	}
	return nil
}
