package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/pgcopy"
)

// The roles are what the test's own program can do as a process to be measured.
const roleVariable = "BENCH_ROLE"

var roles = map[string]func(context.Context) error{
	"copy-confluent": copyConfluent,
	"copy-franz":     copyFranz,
	"rows-1":         func(ctx context.Context) error { return copyRows(ctx, 1) },
	"rows-2":         func(ctx context.Context) error { return copyRows(ctx, 2) },
}

func bare(role string) func(context.Context, testing.TB, *place, int) *program {
	return func(ctx context.Context, tb testing.TB, p *place, _ int) *program {
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), roleVariable+"="+role, "BENCH_BROKERS="+p.stack.Brokers(), "BENCH_GROUP="+p.group, "BENCH_OUTPUT="+p.output,
			"BENCH_DSN="+p.dsn, "BENCH_CLICKS="+strconv.Itoa(*total))
		return launch(tb, cmd)
	}
}

// inTransaction is how many records the bare clients copy in one.
const inTransaction = 20_000

// copyConfluent copies the input untouched, in transactions that carry its offsets, until it is killed.
func copyConfluent(ctx context.Context) error {
	output := os.Getenv("BENCH_OUTPUT")
	c, err := kafka.NewConsumer(&kafka.ConfigMap{
		"bootstrap.servers": os.Getenv("BENCH_BROKERS"), "group.id": os.Getenv("BENCH_GROUP"), "enable.auto.commit": false, "auto.offset.reset": "earliest",
		"isolation.level": "read_committed", "fetch.queue.backoff.ms": 5, "queued.min.messages": 20_000, "queued.max.messages.kbytes": 32 << 10,
	})
	if err != nil {
		return err
	}
	if err := c.Subscribe(input, nil); err != nil {
		return err
	}
	p, err := kafka.NewProducer(&kafka.ConfigMap{
		"bootstrap.servers": os.Getenv("BENCH_BROKERS"), "transactional.id": os.Getenv("BENCH_GROUP"), "linger.ms": 100, "batch.size": 1 << 20, "batch.num.messages": 20_000,
		"retry.backoff.ms": 5, "go.delivery.reports": false, "go.delivery.report.fields": "none",
	})
	if err != nil {
		return err
	}
	go func() {
		for range p.Events() { //nolint:revive // taken, or Commit hangs
		}
	}()
	if err := p.InitTransactions(ctx); err != nil {
		return err
	}
	for {
		if err := p.BeginTransaction(); err != nil {
			return err
		}
		next := map[int32]kafka.TopicPartition{}
		for n, wait := 0, 100; n < inTransaction; {
			m, ok := c.Poll(wait).(*kafka.Message)
			if !ok {
				if n > 0 {
					break
				}
				continue
			}
			wait = 0
			n++
			tp := m.TopicPartition
			tp.Offset++
			next[tp.Partition] = tp
			m.TopicPartition = kafka.TopicPartition{Topic: &output, Partition: tp.Partition}
			for err := p.Produce(m, nil); err != nil; err = p.Produce(m, nil) {
				var ke kafka.Error
				if !errors.As(err, &ke) || ke.Code() != kafka.ErrQueueFull {
					return err
				}
				p.Flush(10)
			}
		}
		var offsets []kafka.TopicPartition
		for _, tp := range next {
			offsets = append(offsets, tp)
		}
		md, err := c.GetConsumerGroupMetadata()
		if err != nil {
			return err
		}
		if err := p.SendOffsetsToTransaction(ctx, offsets, md); err != nil {
			return err
		}
		if err := p.CommitTransaction(ctx); err != nil {
			return err
		}
	}
}

// copyFranz does the same with franz-go.
func copyFranz(ctx context.Context) error {
	output := os.Getenv("BENCH_OUTPUT")
	s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(os.Getenv("BENCH_BROKERS")), kgo.ConsumerGroup(os.Getenv("BENCH_GROUP")), kgo.ConsumeTopics(input),
		kgo.TransactionalID(os.Getenv("BENCH_GROUP")), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(2*inTransaction), kgo.ProducerLinger(100*time.Millisecond))
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	done := func(_ *kgo.Record, err error) {
		if err != nil {
			select {
			case failed <- err:
			default:
			}
		}
	}
	for {
		fs := s.PollRecords(ctx, inTransaction)
		if err := fs.Err0(); err != nil {
			return err
		}
		if fs.NumRecords() == 0 {
			continue
		}
		if err := s.Begin(); err != nil {
			return err
		}
		fs.EachRecord(func(r *kgo.Record) {
			s.Produce(ctx, &kgo.Record{Topic: output, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp}, done)
		})
		if ok, err := s.End(ctx, kgo.TryCommit); err != nil || !ok {
			return fmt.Errorf("committed %v: %w", ok, err)
		}
		select {
		case err := <-failed:
			return err
		default:
		}
	}
}

// copyRows writes as many rows as there are clicks to enriched_clicks, on so many connections, and says so in partition_offsets: what
// Postgres takes if nobody has to make the rows.
func copyRows(ctx context.Context, connections int) error {
	all, err := strconv.Atoi(os.Getenv("BENCH_CLICKS"))
	if err != nil {
		return err
	}
	const sql = `COPY enriched_clicks (source_id, source_partition, source_offset, user_id, session_id, "timestamp", url, ip, country, geo_build) FROM STDIN (FORMAT binary)`
	first, err := pgx.Connect(ctx, os.Getenv("BENCH_DSN"))
	if err != nil {
		return err
	}
	defer first.Close(ctx) //nolint:errcheck // the process ends
	var source int16
	err = first.QueryRow(ctx, `INSERT INTO sources (topic, topic_id, cluster_id, group_id, outputs) VALUES ('b', gen_random_uuid(), 'b', 'b', '{}') RETURNING source_id`).Scan(&source)
	if err != nil {
		return err
	}
	errs := make([]error, connections)
	var wg sync.WaitGroup
	for i := range connections {
		wg.Go(func() {
			errs[i] = func() error {
				c, err := pgx.Connect(ctx, os.Getenv("BENCH_DSN"))
				if err != nil {
					return err
				}
				share := all / connections
				if i == 0 {
					share = all - share*(connections-1)
				}
				rows, at := tuples(source, int32(i))
				for done := 0; done < share; {
					n := min(len(at)-1, share-done)
					for j := range n {
						binary.BigEndian.PutUint64(rows[at[j]+20:], uint64(done+j))
					}
					body := io.MultiReader(bytes.NewReader(pgcopy.Header), bytes.NewReader(rows[:at[n]]), bytes.NewReader(pgcopy.Trailer))
					if _, err := c.PgConn().CopyFrom(ctx, body, sql); err != nil {
						return err
					}
					done += n
				}
				_, err = c.Exec(ctx, `INSERT INTO partition_offsets (source_id, source_partition, next_offset) VALUES ($1, $2, $3)`, source, i, share)
				return err
			}()
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	<-ctx.Done() // it is looked at, then killed
	return nil
}
