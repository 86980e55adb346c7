package doctor

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/exactly-pipeline/exactly/internal/acl"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/transactions"
)

func (g *gatherer) kafka(ctx context.Context) error {
	a, err := admin.New(g.c, g.log)
	if err != nil {
		return err
	}
	defer a.Close()
	adm := a.Kadm()
	if err := g.brokers(ctx, adm); err != nil {
		return err
	}
	if err := g.topics(ctx, adm); err != nil {
		return err
	}
	g.group(ctx, adm)
	g.transactions(ctx, a)
	return g.rights(ctx, adm)
}

func (g *gatherer) brokers(ctx context.Context, adm *kadm.Client) error {
	m, err := adm.BrokerMetadata(ctx)
	if err != nil {
		return fmt.Errorf("ask for the brokers: %w", err)
	}
	versions, err := adm.ApiVersions(ctx)
	if err != nil {
		return fmt.Errorf("ask for the brokers' versions: %w", err)
	}
	settings, hidden := adm.DescribeBrokerConfigs(ctx, m.Brokers.NodeIDs()...)
	g.f.ClusterID = m.Cluster
	for _, v := range versions.Sorted() {
		if v.Err != nil {
			return fmt.Errorf("ask broker %d for its version: %w", v.NodeID, v.Err)
		}
		b := Broker{ID: v.NodeID, Guess: "Kafka " + v.VersionGuess(), Requests: map[int16]int16{}}
		v.EachKeySorted(func(key, _, newest int16) { b.Requests[key] = newest })
		is, err := settings.On(fmt.Sprint(v.NodeID), nil)
		if err == nil {
			err = is.Err
		}
		if hidden == nil {
			hidden = err
		}
		b.Settings = values(is)
		g.f.Brokers = append(g.f.Brokers, b)
	}
	if hidden != nil {
		g.unknown(BrokerSettings, denied("DescribeConfigs on the cluster", hidden))
	}
	return nil
}

func values(r kadm.ResourceConfig) map[string]string {
	out := map[string]string{}
	for _, c := range r.Configs {
		if c.Value != nil {
			out[c.Key] = *c.Value
		}
	}
	return out
}

func (g *gatherer) topics(ctx context.Context, adm *kadm.Client) error {
	for _, name := range append(g.c.AllTopics(), g.c.Topics.Replay) { // one by one: an error of one would be the error of all
		if name == "" {
			continue
		}
		is, err := adm.ListTopics(kadm.WithAuthorizedOps(ctx), name)
		if err != nil && !forbidden(err) {
			return fmt.Errorf("ask for topic %s: %w", name, err)
		}
		g.describe(ctx, adm, is, g.f.Topics)
	}
	for _, name := range []string{"__transaction_state", "__consumer_offsets"} { // where they may not be seen, the brokers' settings are looked at
		if is, err := adm.ListTopicsWithInternal(ctx, name); err == nil {
			g.describe(ctx, adm, is, g.f.Internal)
		}
	}
	return nil
}

func (g *gatherer) describe(ctx context.Context, adm *kadm.Client, details kadm.TopicDetails, into map[string]*Topic) {
	for _, d := range details.Sorted() {
		if d.Err != nil {
			continue // not there, or not for this user: topic-missing says so
		}
		t := &Topic{Name: d.Topic, ID: uuid.UUID(d.ID).String(), Settings: map[string]string{}, Told: len(d.AuthorizedOperations) > 0}
		for _, p := range d.Partitions.Sorted() {
			t.Partitions = append(t.Partitions, Partition{ID: p.Partition, Leader: p.Leader, Replicas: len(p.Replicas), InSync: len(p.ISR)})
		}
		is, err := adm.DescribeTopicConfigs(ctx, d.Topic)
		if err == nil && len(is) == 1 {
			err = is[0].Err
		}
		if err == nil && len(is) == 1 {
			t.Settings = values(is[0])
		} else if !d.IsInternal {
			g.unknown(TopicSettings, denied("DescribeConfigs on topic "+d.Topic, err))
		}
		into[d.Topic] = t
	}
}

func (g *gatherer) group(ctx context.Context, adm *kadm.Client) {
	ds, err := adm.DescribeGroups(ctx, g.c.Group)
	if err == nil {
		err = ds[g.c.Group].Err
	}
	switch {
	case errors.Is(err, kerr.GroupIDNotFound):
		return
	case forbidden(err):
		g.f.Group.Told = true
		g.unknown(GroupMembers, denied("Describe on the group", err))
		return
	case err != nil:
		g.unknown(GroupMembers, err)
		return
	}
	d := ds[g.c.Group]
	g.f.Group.Told = len(d.AuthorizedOperations) > 0
	for _, m := range d.Members {
		out := Member{Client: m.ClientID, Host: m.ClientHost}
		if m.InstanceID != nil {
			out.Instance = *m.InstanceID
		}
		g.f.Group.Members = append(g.f.Group.Members, out)
	}
}

// rights are those of a worker that this user lacks. Of transactional ids brokers don't tell; whether ours may be described they do.
func (g *gatherer) rights(ctx context.Context, adm *kadm.Client) error {
	rules := append(acl.Rules(g.c, acl.Worker), acl.Rules(g.c, acl.Pointers)...)
	missing, err := acl.Missing(ctx, adm, rules)
	if err != nil {
		return err
	}
	if _, err := adm.DescribeTransactions(ctx, g.c.TransactionalID(g.c.Worker.ID)); forbidden(err) {
		for _, r := range rules {
			if r.Type == acl.TransactionalID {
				missing = append(missing, r)
			}
		}
	}
	for _, r := range missing {
		g.f.Lacks = append(g.f.Lacks, r.String())
	}
	return nil
}

func (g *gatherer) transactions(ctx context.Context, a *admin.Admin) {
	r, err := transactions.New(g.c, a).List(ctx, transactions.Options{})
	if err != nil {
		g.unknown(Transactions, err)
		return
	}
	g.f.Open = r.Transactions
}

func forbidden(err error) bool {
	var auth *kadm.AuthError
	return errors.As(err, &auth) || errors.Is(err, kerr.GroupAuthorizationFailed) || errors.Is(err, kerr.TopicAuthorizationFailed) ||
		errors.Is(err, kerr.ClusterAuthorizationFailed) || errors.Is(err, kerr.TransactionalIDAuthorizationFailed)
}

// denied says what would have to be allowed, where that is what is wrong.
func denied(what string, err error) error {
	if forbidden(err) {
		return fmt.Errorf("this Kafka user may not look at it (needs %s)", what)
	}
	return err
}
