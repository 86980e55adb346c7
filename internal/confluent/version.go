package confluent

import "github.com/confluentinc/confluent-kafka-go/v2/kafka"

// Version is the version of the librdkafka that this program is linked with, as it calls itself: 2.15.0. It is another than the one it was
// built for where it is linked dynamically.
func Version() string {
	_, v := kafka.LibraryVersion()
	return v
}
