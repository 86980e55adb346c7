package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/exactly-pipeline/exactly/internal/stack/child"
)

// kafka is the broker. kfake keeps topics, records, group offsets and producer ids on disk by itself; what it does not do,
// making a crash safe for transactions, is in decision.go and recovery.go; joining.go keeps members that wait in a rebalance, and
// fetching.go aborted records out of sight.
type kafka struct {
	cluster   *kfake.Cluster
	decisions *decisions
	joining   *joining
	log       *kafkaLog
	clean     string // the file that says the last stop was a clean one
}

func startKafka(o Options, st *state) (_ *kafka, err error) {
	dir := filepath.Join(o.Dir, "kafka")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	k := &kafka{log: &kafkaLog{log: o.Log.Named("kafka")}, clean: filepath.Join(o.Dir, "kafka.clean")}
	decided := filepath.Join(o.Dir, "kafka.decision")
	if _, err := os.Stat(k.clean); errors.Is(err, os.ErrNotExist) {
		found, err := recoverKafka(dir, decided)
		if err != nil {
			return nil, fmt.Errorf("recover after a crash: %w", err)
		}
		if found != (recovered{}) {
			o.Log.Info("kafka broker recovered after a crash", zap.Int("aborted", found.aborted), zap.Int("committed", found.committed),
				zap.Int("fenced", found.fenced), zap.Int64("torn_bytes", found.tornBytes))
		}
	}
	// Gone before the first write: from here on, only a clean stop makes the next start trust what it finds.
	if err := errors.Join(removeIfThere(k.clean), removeIfThere(decided), syncDir(o.Dir)); err != nil {
		return nil, err
	}
	if st.KafkaPort, err = child.FreePort(st.KafkaPort); err != nil {
		return nil, err
	}
	opts := []kfake.Opt{
		kfake.Ports(st.KafkaPort), kfake.ListenFn(child.Listen), kfake.ClusterID(st.ClusterID), kfake.DataDir(dir),
		kfake.GroupMinSessionTimeout(o.GroupMinSession), kfake.WithLogger(k.log),
	}
	if !o.NoSyncKafka {
		opts = append(opts, kfake.SyncWrites())
	}
	if k.decisions, err = newDecisions(decided, filepath.Join(dir, "pids.log"), !o.NoSyncKafka); err != nil {
		return nil, err
	}
	if k.cluster, err = kfake.NewCluster(opts...); err != nil {
		return nil, errors.Join(err, k.decisions.close())
	}
	if k.joining, err = newJoining(k.cluster.ListenAddrs(), o.GroupMinSession); err != nil {
		k.cluster.Close()
		return nil, errors.Join(err, k.decisions.close())
	}
	k.decisions.watch(k.cluster)
	k.joining.watch(k.cluster)
	watchFetches(k.cluster)
	return k, nil
}

func (k *kafka) stop() error {
	// kfake may close between our look at an EndTxn and its own, and then carries it out behind the state it has just saved.
	// So: no more of them, and one request through its loop, behind which the last one is done.
	k.decisions.refuse.Store(true)
	if err := ping(k.cluster.ListenAddrs()); err != nil {
		k.log.log.Warn("no answer before closing", zap.Error(err))
	}
	k.joining.close()
	k.cluster.Close()
	if err := k.decisions.close(); err != nil {
		return err
	}
	if k.log.failed.Load() { // kfake only logs that it could not save
		return errors.New("the broker reported errors while it ran or saved; its next start treats this as a crash")
	}
	return writeFile(k.clean, nil, 0o600)
}

func ping(brokers []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return err
	}
	defer cl.Close()
	return cl.Ping(ctx)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// kafkaLog hands kfake's log on. Its info is one line a request, so it counts as debug here.
type kafkaLog struct {
	log    *zap.Logger
	failed atomic.Bool
}

func (l *kafkaLog) Logf(level kfake.LogLevel, format string, args ...any) {
	at := zapcore.DebugLevel
	switch level {
	case kfake.LogLevelError:
		l.failed.Store(true)
		at = zapcore.ErrorLevel
	case kfake.LogLevelWarn:
		at = zapcore.WarnLevel
	}
	if ce := l.log.Check(at, ""); ce != nil {
		ce.Message = fmt.Sprintf(format, args...)
		ce.Write()
	}
}
