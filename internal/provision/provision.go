// Package provision owns what `exactly setup` makes: tables, roles and their rights, topics, schemas, and the source's row.
//
// It promises that it is safe to repeat and says what it changed. It never deletes, nor changes a topic that exists.
package provision

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/migrations"
	"github.com/exactly-pipeline/exactly/txn"
)

// Options say how far a setup may go.
type Options struct {
	AcceptRecreated string // why a recreated cluster or topic is accepted as it is now; empty: it is an error
	NoSchemas       bool   // of clicks: the application has none, or its own
	Log             *zap.Logger
}

// PartitionsAhead is how many days of time partitions are made ahead.
const PartitionsAhead = 7

// Setup makes what is missing and returns what it changed, a line each. Several at once wait for each other.
func Setup(ctx context.Context, c *config.Config, o Options) (did []string, err error) {
	err = exclusively(ctx, c.Postgres.DSN, func(conn *pgx.Conn) (err error) {
		did, err = setup(ctx, c, o, conn)
		return err
	})
	return did, err
}

func setup(ctx context.Context, c *config.Config, o Options, conn *pgx.Conn) ([]string, error) {
	var did []string
	tables, err := migrate(ctx, c.Postgres.DSN, conn)
	did = append(did, tables...)
	if err != nil {
		return did, err
	}
	a, err := admin.New(c, o.Log)
	if err != nil {
		return did, err
	}
	defer a.Close()
	made, err := Topics(ctx, c, a)
	did = append(did, made...)
	if err != nil {
		return did, err
	}
	if !o.NoSchemas {
		registered, err := Schemas(ctx, c, false)
		did = append(did, registered...)
		if err != nil {
			return did, err
		}
	}
	line, err := source(ctx, c, a, conn, o.AcceptRecreated)
	if line != "" {
		did = append(did, line)
	}
	return did, err
}

// Migrate applies missing migrations, sets the roles' rights, and makes the time partitions of the days ahead.
func Migrate(ctx context.Context, dsn string) (did []string, err error) {
	err = exclusively(ctx, dsn, func(conn *pgx.Conn) (err error) {
		did, err = migrate(ctx, dsn, conn)
		return err
	})
	return did, err
}

func migrate(ctx context.Context, dsn string, conn *pgx.Conn) ([]string, error) {
	names, err := migrations.Up(ctx, dsn)
	var did []string
	for _, n := range names {
		did = append(did, "applied migration "+n)
	}
	if err != nil {
		return did, err
	}
	granted, err := grant(ctx, conn)
	did = append(did, granted...)
	if err != nil {
		return did, err
	}
	n, err := daysAhead(ctx, conn, tryFor)
	if n > 0 {
		did = append(did, fmt.Sprintf("made %d time partitions, up to %d days ahead", n, PartitionsAhead))
	}
	if errors.Is(err, ErrInUse) { // no reason to stop a roll-out beside the nightly audit
		did, err = append(did, fmt.Sprintf("NOT made: %v", err)), nil
	}
	return did, err
}

func source(ctx context.Context, c *config.Config, a *admin.Admin, conn *pgx.Conn, accept string) (_ string, err error) {
	now := txn.Source{Topic: c.Topics.Input, Group: c.Group}
	if now.ClusterID, err = a.Cluster(ctx); err != nil {
		return "", err
	}
	if now.TopicIDs, err = a.TopicIDs(ctx); err != nil {
		return "", err
	}
	for _, t := range c.AllTopics() {
		if now.TopicIDs[t] == "" { // a source without it would never notice that it was recreated
			return "", fmt.Errorf("topic %s is gone again", t)
		}
	}
	old, err := txn.FindSource(ctx, conn, c.Topics.Input, c.Group)
	if errors.Is(err, txn.ErrNoSource) {
		id, err := txn.AddSource(ctx, conn, now)
		return fmt.Sprintf("added source %d: topic %s, group %s", id, c.Topics.Input, c.Group), err
	}
	if err != nil {
		return "", err
	}
	err = old.Matches(now.ClusterID, now.TopicIDs)
	if h := c.Ledger.HeadsTopic; err == nil && h != "" && old.TopicIDs[h] == "" { // set up before there were heads, or with another topic for them
		return fmt.Sprintf("source %d publishes its ledger heads to %s", old.ID, h), txn.AddOutput(ctx, conn, old.ID, h, now.TopicIDs[h])
	}
	var changed *txn.ErrSourceChanged
	if err == nil || !errors.As(err, &changed) || accept == "" {
		return "", err
	}
	if err := outputsAreFree(ctx, c, a, old, now); err != nil {
		return "", err
	}
	var id int16
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		id, err = txn.ReplaceSource(ctx, tx, old, now, accept)
		return err
	})
	return fmt.Sprintf("accepted: %s is now %s (source %d): %s", changed.What, changed.Is, id, accept), err
}

// outputsAreFree refuses a recreated input whose outputs still hold the old one's events: exactly-source names a topic, not its
// incarnation, so the old events would be taken for the new records'.
func outputsAreFree(ctx context.Context, c *config.Config, a *admin.Admin, old, now txn.Source) error {
	if old.TopicIDs[c.Topics.Input] == now.TopicIDs[c.Topics.Input] && old.ClusterID == now.ClusterID {
		return nil
	}
	starts, ends, err := a.LogRange(ctx, c.Topics.Output, c.Topics.DLQ)
	if err != nil {
		return err
	}
	for t, partitions := range ends {
		for p, e := range partitions {
			if s, _ := starts.Lookup(t, p); e.Offset > s.Offset {
				return fmt.Errorf("topic %s still holds events of the %s that was there before, and they can't be told from the new one's: "+
					"give the new source outputs of its own (topics.output, topics.dlq) and run setup again", t, c.Topics.Input)
			}
		}
	}
	return nil
}
