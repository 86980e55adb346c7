package start

import (
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/confluent"
	"github.com/exactly-pipeline/exactly/internal/franz"
	"github.com/exactly-pipeline/exactly/txn"
)

// Client is the Kafka client of records and transactions, as kafka.client chooses it.
type Client struct {
	Source   func(engine.Listener) (engine.Source, error)
	Producer func() (txn.Producer, error)
}

// maxMessage is how large a message the client of the settings can publish, in bytes. limit is the smallest max.message.bytes of the output topics; 0: the
// brokers do not say.
func maxMessage(c *config.Config, limit int) int {
	most := confluent.MaxMessage
	if c.Kafka.Client == "franz" && limit <= 0 {
		limit = franz.MaxMessage
	}
	if limit > 0 {
		most = min(most, limit)
	}
	return most
}

// NewClient chooses by the setting. maxMessage is Shape's, which MeetKafka has set.
func NewClient(c *config.Config, maxMessage int, log *zap.Logger) Client {
	return chooseClient(c, maxMessage, log).explained(c, log)
}

func chooseClient(c *config.Config, maxMessage int, log *zap.Logger) Client {
	if c.Kafka.Client == "franz" {
		return Client{
			Source:   func(l engine.Listener) (engine.Source, error) { return franz.NewSource(c, l, log) },
			Producer: func() (txn.Producer, error) { return franz.NewProducer(c, maxMessage, log) },
		}
	}
	return Client{
		Source:   func(l engine.Listener) (engine.Source, error) { return confluent.NewSource(c, l, log) },
		Producer: func() (txn.Producer, error) { return confluent.NewProducer(c, log) },
	}
}
