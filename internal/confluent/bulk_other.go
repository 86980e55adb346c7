//go:build !linux

package confluent

import (
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Elsewhere records cross into C one by one, as the Go client has it.

type bulkReader struct{}

func newBulkReader(*kafka.Consumer) *bulkReader { return nil }

func (*bulkReader) forward(string, int32) bool { return false }
func (*bulkReader) close()                     {}
func (*bulkReader) read(buf []engine.Record, _ int, _ time.Duration) ([]engine.Record, error) {
	return buf, nil
}

type bulkWriter struct{}

func newBulkWriter(*kafka.Producer) *bulkWriter { return nil }

func (*bulkWriter) close()                              {}
func (*bulkWriter) forget()                             {}
func (*bulkWriter) add(*outbox.Message) (full, ok bool) { return false, false }
func (*bulkWriter) hand(func() bool) error              { return nil }
