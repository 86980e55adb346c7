package pipeline

import (
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/confluent"
	"github.com/exactly-pipeline/exactly/internal/franz"
	"github.com/exactly-pipeline/exactly/txn"
)

// client is the Kafka client of records and transactions, as kafka.client chooses it.
type client struct {
	source   func(engine.Listener) (engine.Source, error)
	producer func() (txn.Producer, error)
}

// newClient chooses by the setting. maxMessage is the smallest max.message.bytes of the output topics, 0 if unknown; librdkafka leaves
// the limit to the broker.
func newClient(c *config.Config, maxMessage int, log *zap.Logger) client {
	return chooseClient(c, maxMessage, log).explained(c, log)
}

func chooseClient(c *config.Config, maxMessage int, log *zap.Logger) client {
	if c.Kafka.Client == "franz" {
		return client{
			source:   func(l engine.Listener) (engine.Source, error) { return franz.NewSource(c, l, log) },
			producer: func() (txn.Producer, error) { return franz.NewProducer(c, maxMessage, log) },
		}
	}
	return client{
		source:   func(l engine.Listener) (engine.Source, error) { return confluent.NewSource(c, l, log) },
		producer: func() (txn.Producer, error) { return confluent.NewProducer(c, log) },
	}
}
