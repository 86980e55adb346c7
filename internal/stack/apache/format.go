package apache

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// What formatting writes into the folder of a broker's data: the first records of the metadata log, which say the features' versions and are
// the same for all brokers of a version; and, last, whose folder it is.
const (
	checkpoint = "bootstrap.checkpoint"
	meta       = "meta.properties"
)

// format is done once: what it writes last says so. Kafka's own tool does it the first time on a machine, and wherever it is told more than to format;
// a JVM started for two small files is most of a broker's start.
func (b *Broker) format(ctx context.Context, file string) error {
	data := filepath.Join(b.dir, "data")
	if _, err := os.Stat(filepath.Join(data, meta)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !b.plain() {
		return b.formatByTool(ctx, file)
	}
	kept := b.programs.File(checkpoint)
	records, err := os.ReadFile(kept)
	if err == nil {
		return b.formatLike(data, records)
	}
	if err := b.formatByTool(ctx, file); err != nil {
		return err
	}
	if records, err = os.ReadFile(filepath.Join(data, checkpoint)); err != nil {
		return fmt.Errorf("the tool has formatted otherwise than it used to: %w", err)
	}
	draft := filepath.Join(b.dir, checkpoint) // on the way to its place it must not be read half written, by a broker of any process
	if err := os.WriteFile(draft, records, 0o600); err != nil {
		return err
	}
	defer os.Remove(draft)     //nolint:errcheck // renamed, as a rule
	_ = os.Rename(draft, kept) // on another disk, say: the next one asks the tool again
	return nil
}

// plain says whether all brokers are formatted alike: nothing is asked for that would be written with the features' versions.
func (b *Broker) plain() bool {
	named := slices.Collect(maps.Keys(b.opt.Properties))
	if b.opt.PerBroker != nil {
		named = slices.AppendSeq(named, maps.Keys(b.opt.PerBroker(b.id)))
	}
	return len(b.opt.Format) == 0 && !slices.ContainsFunc(named, func(name string) bool { return strings.HasPrefix(name, "unstable.") })
}

// formatLike writes what the tool would write.
func (b *Broker) formatLike(data string, records []byte) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, checkpoint), records, 0o600); err != nil {
		return err
	}
	properties, err := render(map[string]string{"version": "1", "cluster.id": b.opt.ClusterID, "node.id": strconv.Itoa(b.id), "directory.id": directoryID()})
	if err != nil {
		return err
	}
	draft := filepath.Join(b.dir, meta)
	if err := os.WriteFile(draft, []byte(properties), 0o600); err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(data, meta))
}

// directoryID is a random one (KIP-858), as Kafka makes them: its tools would take a leading dash for an option.
func directoryID() string {
	for {
		id := make([]byte, 16)
		_, _ = rand.Read(id) // never fails (crypto/rand)
		if s := base64.RawURLEncoding.EncodeToString(id); s[0] != '-' {
			return s
		}
	}
}

func (b *Broker) formatByTool(ctx context.Context, file string) error {
	args := append([]string{"format", "--cluster-id=" + b.opt.ClusterID, "--config", file, "--ignore-formatted"}, b.opt.Format...)
	p, err := b.start(b.programs.Kafka(append([]string{"-Xmx128m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"}, b.opt.JVM...), "kafka.tools.StorageTool", args...))
	if err != nil {
		return err
	}
	select {
	case <-p.Exited():
		if err := p.Result(); err != nil {
			return fmt.Errorf("%w%s", err, p.Tail())
		}
		return nil
	case <-ctx.Done():
		p.Kill()
		return ctx.Err()
	}
}
