package provision

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/migrations"
	"github.com/exactly-pipeline/exactly/schema"
	"github.com/exactly-pipeline/exactly/txn"
)

// Plan says what Setup would change, a line each, and changes nothing. What depends on what would be made first (rights on tables that are not there
// yet, a source of topics without an id) is said as one line.
func Plan(ctx context.Context, c *config.Config, o Options) ([]string, error) {
	would, err := PlanMigrate(ctx, c.Postgres.DSN)
	if err != nil {
		return would, err
	}
	a, err := admin.New(c, o.Log)
	if err != nil {
		return would, err
	}
	defer a.Close()
	missing, err := missingTopics(ctx, c, a)
	if err != nil {
		return would, err
	}
	for i := range missing {
		would = append(would, "create topic "+missing[i].String())
	}
	if !o.NoSchemas {
		schemas, err := PlanSchemas(ctx, c, false)
		would = append(would, schemas...)
		if err != nil {
			return would, err
		}
	}
	line, err := planSource(ctx, c, a, o.AcceptRecreated)
	if line != "" {
		would = append(would, line)
	}
	return would, err
}

// PlanMigrate says what Migrate would change. Where no migration is missing, roles, rights and days are tried in a transaction that is undone.
func PlanMigrate(ctx context.Context, dsn string) ([]string, error) {
	pending, err := migrations.Pending(ctx, dsn)
	if err != nil {
		return nil, err
	}
	var would []string
	for _, n := range pending {
		would = append(would, "apply migration "+n)
	}
	if len(pending) > 0 {
		return append(would, "set the roles' rights, and make the coming days' time partitions"), nil
	}
	err = exclusively(ctx, dsn, func(conn *pgx.Conn) error {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // the connection ends with it
		granted, err := grant(ctx, tx)
		for _, g := range granted {
			would = append(would, "have "+g)
		}
		if err != nil {
			return err
		}
		n, err := migrations.MakeDaysAhead(ctx, tx, PartitionsAhead)
		if n > 0 {
			would = append(would, fmt.Sprintf("make %d time partitions, up to %d days ahead", n, PartitionsAhead))
		}
		return err
	})
	return would, err
}

// PlanSchemas says what Schemas would change.
func PlanSchemas(ctx context.Context, c *config.Config, levels bool) ([]string, error) {
	reg, err := Registry(c)
	if err != nil {
		return nil, err
	}
	defer reg.Close()
	var would []string
	for _, s := range Subjects(c) {
		is, err := Examine(ctx, reg, s)
		if err != nil {
			return would, err
		}
		if !is.Ours {
			line := "register schema " + s.Name
			if is.Refused != "" {
				line += ", which the registry refuses: " + is.Refused
			}
			would = append(would, line)
		}
		if s.JSON == "" && is.Level != schema.OwnLevel && (levels || len(is.Versions) == 0) {
			would = append(would, fmt.Sprintf("set the compatibility level of %s to %s", s.Name, schema.OwnLevel))
		}
	}
	return would, nil
}

// planSource says what would become of the source's row.
func planSource(ctx context.Context, c *config.Config, a *admin.Admin, accept string) (string, error) {
	conn, err := pgx.Connect(ctx, c.Postgres.DSN)
	if err != nil {
		return "", fmt.Errorf("connect to postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // read only
	add := fmt.Sprintf("add a source: topic %s, group %s", c.Topics.Input, c.Group)
	var there bool
	if err := conn.QueryRow(ctx, `SELECT to_regclass('sources') IS NOT NULL`).Scan(&there); err != nil || !there {
		return add, err
	}
	old, err := txn.FindSource(ctx, conn, c.Topics.Input, c.Group)
	if errors.Is(err, txn.ErrNoSource) {
		return add, nil
	}
	if err != nil {
		return "", err
	}
	cluster, err := a.Cluster(ctx)
	if err != nil {
		return "", err
	}
	ids, err := a.TopicIDs(ctx)
	if err != nil {
		return "", err
	}
	err = old.Matches(cluster, ids)
	var changed *txn.ErrSourceChanged
	switch h := c.Ledger.HeadsTopic; {
	case err == nil && h != "" && old.TopicIDs[h] == "":
		return fmt.Sprintf("have source %d publish its ledger heads to %s", old.ID, h), nil
	case errors.As(err, &changed) && accept != "":
		return fmt.Sprintf("accept: %s is now %s", changed.What, changed.Is), nil
	}
	return "", err
}
