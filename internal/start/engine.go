package start

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/replicas"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// StoreConfig is how the settings have a store opened. What it writes to, the handler says.
func StoreConfig(c *config.Config, build string, log *zap.Logger) txn.StoreConfig {
	return txn.StoreConfig{
		DSN: c.Postgres.DSN, CurrentDSN: c.Postgres.CurrentDSN, Group: c.Group, Worker: c.Worker.ID, Build: build, LockTimeout: c.Postgres.LockTimeout,
		IdleTimeout: c.Postgres.IdleTimeout, Connections: c.Postgres.Connections, Log: log,
	}
}

// leaves asks Kubernetes at the stop; nil where no StatefulSet is to be asked about.
func leaves(c *config.Config, log *zap.Logger) func(context.Context) bool {
	if c.Kubernetes.StatefulSet == "" {
		return nil
	}
	return func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		back, err := replicas.Here(c.Kubernetes.StatefulSet, c.Worker.ID, c.Kubernetes.AccountDir).ComesBack(ctx)
		switch {
		case err != nil:
			log.Warn("whether this pod is to come back can't be told: leave_on_stop decides", zap.Bool("leave_on_stop", c.LeaveOnStop), zap.Error(err))
			return c.LeaveOnStop
		case back:
			log.Info("this pod is to come back: it keeps its place in the group")
		default:
			log.Info("this pod was scaled away: it leaves the group")
		}
		return !back
	}
}

// EngineConfig is how the settings have a worker run. Its source's id and shape, its handler, its store and who watches it are the caller's to add.
func EngineConfig(c *config.Config, adm *admin.Admin, client Client, signer *ledger.Signer, log *zap.Logger) engine.Config {
	return engine.Config{
		WorkerID: c.Worker.ID, MaxRecords: c.Batch.MaxRecords, MaxBytes: c.Batch.MaxBytes, MaxInFlight: c.Batch.MaxInFlight, DrainRecords: c.Batch.DrainRecords,
		DeadShare:       engine.DeadShare{Share: c.DeadLetters.MaxShare, Least: c.DeadLetters.Free},
		QuarantineAfter: c.DeadLetters.QuarantineAfter,
		BackoffMax:      min(5*time.Second, c.Kafka.SessionTimeout/2), StopTimeout: c.StopTimeout, Leave: c.LeaveOnStop, Leaves: leaves(c, log),
		Source: client.Source, Group: Group(adm, c), Log: log,
		Publisher: &txn.Publisher{Topic: c.Topics.Input, Timeout: c.Kafka.TransactionTimeout, Log: log, New: client.Producer,
			HeadsTopic: c.Ledger.HeadsTopic, Signer: signer},
	}
}
