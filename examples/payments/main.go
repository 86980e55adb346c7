// Command payments owns a second, small application of the engine, to be read as an example: payments from one topic are booked in euros, in a table and
// in another topic, each exactly once.
//
// It promises to get by with what this module offers to others: no package below internal. It never knows offsets or transactions.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/worker"
)

//go:embed payments.sql
var tables string

const usage = `payments setup   make the tables and topics
payments run     run one worker of the consumer group; several share the work, each under its own EXACTLY_WORKER_ID

Settings are exactly's own, from the environment: EXACTLY_KAFKA_BROKERS, EXACTLY_POSTGRES_DSN, …`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "payments:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New(usage)
	}
	w, err := worker.Open(worker.Names{Group: "payments", Input: "payments", Output: "booked_payments", DLQ: "payments_dlq"}, "example", os.Environ())
	if err != nil {
		return err
	}
	switch args[0] {
	case "setup":
		return setup(ctx, w)
	case "run":
		rates, err := readRates(ctx, w)
		if err != nil {
			return err
		}
		return w.Run(ctx, engine.Use(NewHandler(w.Output(), rates), engine.Validated(notTooLong)))
	}
	return errors.New(usage)
}

// setup makes what the engine needs, then the application's own tables.
func setup(ctx context.Context, w *worker.Worker) error {
	did, err := w.Setup(ctx)
	for _, line := range did {
		fmt.Println(line)
	}
	if err != nil {
		return err
	}
	return inDatabase(ctx, w, func(db *pgx.Conn) error {
		_, err := db.Exec(ctx, tables)
		return err
	})
}

// readRates reads what the handler depends on, once: it gets them by its constructor.
func readRates(ctx context.Context, w *worker.Worker) (Rates, error) {
	rates := Rates{}
	return rates, inDatabase(ctx, w, func(db *pgx.Conn) error {
		rows, err := db.Query(ctx, `SELECT currency, micro_euros FROM payment_rates`)
		if err != nil {
			return err
		}
		var currency string
		var rate int64
		_, err = pgx.ForEachRow(rows, []any{&currency, &rate}, func() error {
			rates[currency] = rate
			return nil
		})
		return err
	})
}

func inDatabase(ctx context.Context, w *worker.Worker, f func(*pgx.Conn) error) error {
	dsn, err := w.DSN()
	if err != nil {
		return err
	}
	db, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer db.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing left to lose
	return f(db)
}

// notTooLong is middleware's: a record that is too long to be a payment is not even decoded.
func notTooLong(r *engine.Record) *engine.Permanent {
	if len(r.Value) > 4096 {
		return &engine.Permanent{Class: "invalid", Stage: "validate", Message: fmt.Sprintf("must be at most 4096 bytes, is %d", len(r.Value))}
	}
	return nil
}
