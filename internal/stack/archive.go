package stack

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/stack/apache"
	"github.com/exactly-pipeline/exactly/internal/stack/apicurio"
	"github.com/exactly-pipeline/exactly/internal/stack/child"
	"github.com/exactly-pipeline/exactly/internal/stack/jvm"
)

// archivesWithin bounds what is only there to save time.
const archivesWithin = 2 * time.Minute

// archive has the archives made from which the programs of a stack of kind Kafka start sooner, where there are none yet: each program runs once for
// that. Without one they start all the same, so what goes wrong is only logged.
func archive(ctx context.Context, programs *jvm.Programs, o Options) {
	ctx, cancel := context.WithTimeout(ctx, archivesWithin)
	defer cancel()
	var wg sync.WaitGroup
	program := func(p Parts, of jvm.Program, run func(ctx context.Context, dir, argument string) error) {
		if o.Only&p == 0 {
			return
		}
		wg.Go(func() {
			err := programs.Archive(ctx, of, func(argument string) error {
				o.Log.Info("archiving the classes of a program, once, to have it up sooner", zap.String("program", string(of)))
				dir := filepath.Join(o.Dir, "archive-"+string(of))
				defer os.RemoveAll(dir) //nolint:errcheck // of no use to anybody, and no harm
				if err := os.MkdirAll(dir, 0o700); err != nil {
					return err
				}
				return run(ctx, dir, argument)
			})
			if err != nil {
				o.Log.Warn("a program will take longer to start", zap.Error(err))
			}
		})
	}
	program(Broker, jvm.Kafka, func(ctx context.Context, dir, argument string) error {
		var ports apache.Ports
		defer func() { releasePorts(ports) }()
		c, err := apache.Start(ctx, programs, apache.Options{Dir: dir, ClusterID: "AAAAAAAAAAAAAAAAAAAAAA", Ports: &ports, Archive: argument}, func(error) {})
		if err != nil {
			return err
		}
		return errors.Join(exerciseKafka(ctx, c.Addrs(apache.Plaintext)), c.Stop())
	})
	program(Registry, jvm.Registry, func(ctx context.Context, dir, argument string) error {
		port := 0
		defer func() { child.ReleasePort(port) }()
		r, err := apicurio.Start(ctx, programs, apicurio.Options{Dir: dir, Port: &port, Archive: argument}, func(error) {})
		if err != nil {
			return err
		}
		return errors.Join(exerciseRegistry(ctx, r.URL()), r.Stop())
	})
	wg.Wait()
}

// exerciseKafka does what every user of a broker does: what has been loaded when it ends is in the archive.
func exerciseKafka(ctx context.Context, broker string) error {
	const topic = "t"
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.TransactionalID("t"), kgo.ConsumerGroup("g"), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return err
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, topic); err != nil {
		return err
	}
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr(); err != nil {
		return err
	}
	if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return err
	}
	if err := cl.PollRecords(ctx, 1).Err(); err != nil {
		return err
	}
	return cl.CommitUncommittedOffsets(ctx)
}

func exerciseRegistry(ctx context.Context, url string) error {
	cl, err := sr.NewClient(sr.URLs(url))
	if err != nil {
		return err
	}
	s, err := cl.CreateSchema(ctx, "s", sr.Schema{Schema: `{"type": "record", "name": "R", "fields": [{"name": "f", "type": "string"}]}`, Type: sr.TypeAvro})
	if err != nil {
		return err
	}
	_, err = cl.SchemaByID(ctx, s.ID)
	return err
}
