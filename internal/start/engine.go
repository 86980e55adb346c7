package start

import (
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
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

// EngineConfig is how the settings have a worker run. Its source's id and shape, its handler, its store and who watches it are the caller's to add.
func EngineConfig(c *config.Config, adm *admin.Admin, client Client, signer *ledger.Signer, log *zap.Logger) engine.Config {
	return engine.Config{
		WorkerID: c.Worker.ID, MaxRecords: c.Batch.MaxRecords, MaxBytes: c.Batch.MaxBytes, MaxInFlight: c.Batch.MaxInFlight, DrainRecords: c.Batch.DrainRecords,
		DeadShare:       engine.DeadShare{Share: c.DeadLetters.MaxShare, Least: c.DeadLetters.Free},
		QuarantineAfter: c.DeadLetters.QuarantineAfter,
		BackoffMax:      min(5*time.Second, c.Kafka.SessionTimeout/2), StopTimeout: c.StopTimeout, Leave: c.LeaveOnStop,
		Source: client.Source, Group: Group(adm, c), Log: log,
		Publisher: &txn.Publisher{Topic: c.Topics.Input, Timeout: c.Kafka.TransactionTimeout, Log: log, New: client.Producer,
			HeadsTopic: c.Ledger.HeadsTopic, Signer: signer},
	}
}
