package txn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/exactly-pipeline/exactly/ledger"
)

// Source is one row of sources: where the records come from and where they go, by identity and not only by name.
type Source struct {
	ID        int16
	Topic     string
	ClusterID string
	Group     string
	Start     string            // how a first start is to begin: earliest, latest or an RFC 3339 time
	TopicIDs  map[string]string // input and outputs, by name, as they were at setup
}

// ErrNoSource says setup has not been run for this topic and group.
var ErrNoSource = errors.New("this topic and group are unknown to the database: run `exactly setup`")

// ErrSourceChanged says the cluster or a topic is not the one the source was set up with.
type ErrSourceChanged struct {
	What, Was, Is string
	Output        bool // it is an output topic: what it had can be published again
}

func (e *ErrSourceChanged) Error() string {
	heal := ""
	if e.Output {
		heal = "to publish again what it had: exactly heal kafka --reason …; "
	}
	return fmt.Sprintf("%s was %s when this source was set up and is %s now: it was recreated, or these settings point somewhere else; "+
		heal+"to go on with what is there now: exactly setup --accept-recreated REASON", e.What, e.Was, e.Is)
}

// DB is what sources are read and written with: a pgx connection, pool or transaction.
type DB interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// FindSource reads the current source of a topic and group. ErrNoSource if there is none.
func FindSource(ctx context.Context, db DB, topic, group string) (Source, error) {
	s, err := sourceWhere(ctx, db, "topic = $1 AND group_id = $2 AND retired_at IS NULL", topic, group)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, fmt.Errorf("topic %s, group %s: %w", topic, group, ErrNoSource)
	}
	return s, err
}

func sourceWhere(ctx context.Context, db DB, where string, args ...any) (Source, error) {
	s := Source{TopicIDs: map[string]string{}}
	var input string
	var outputs []byte
	err := db.QueryRow(ctx, `SELECT source_id, topic, group_id, topic_id::text, cluster_id, outputs FROM sources WHERE `+where, args...).
		Scan(&s.ID, &s.Topic, &s.Group, &input, &s.ClusterID, &outputs)
	if err != nil {
		return s, fmt.Errorf("read source: %w", err)
	}
	if err := json.Unmarshal(outputs, &s.TopicIDs); err != nil {
		return s, fmt.Errorf("read source %s: outputs: %w", s.Topic, err)
	}
	s.TopicIDs[s.Topic] = input
	return s, nil
}

// AddSource makes the row of a source never seen before.
func AddSource(ctx context.Context, db DB, s Source) (int16, error) {
	outputs := map[string]string{}
	for t, id := range s.TopicIDs {
		if t != s.Topic {
			outputs[t] = id
		}
	}
	b, err := json.Marshal(outputs)
	if err != nil {
		return 0, err
	}
	var id int16
	err = db.QueryRow(ctx, `INSERT INTO sources (topic, topic_id, cluster_id, group_id, outputs) VALUES ($1, $2::text::uuid, $3, $4, $5) RETURNING source_id`,
		s.Topic, s.TopicIDs[s.Topic], s.ClusterID, s.Group, b).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("add source %s: %w", s.Topic, err)
	}
	return id, nil
}

// AddOutput notes one more topic that the source writes to.
func AddOutput(ctx context.Context, db interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, sourceID int16, topic, topicID string) error {
	_, err := db.Exec(ctx, `UPDATE sources SET outputs = outputs || jsonb_build_object($2::text, $3::text) WHERE source_id = $1`, sourceID, topic, topicID)
	if err != nil {
		return fmt.Errorf("add output %s to source %d: %w", topic, sourceID, err)
	}
	return nil
}

// Stream is what the chains of the source are called by.
func (s *Source) Stream() ledger.Stream {
	return ledger.Stream{SourceID: s.ID, Topic: s.Topic, TopicID: s.TopicIDs[s.Topic], Group: s.Group}
}

// Matches returns *ErrSourceChanged if the cluster or a topic has another identity now.
func (s *Source) Matches(clusterID string, topicIDs map[string]string) error {
	if s.ClusterID != clusterID {
		return &ErrSourceChanged{What: "the Kafka cluster", Was: s.ClusterID, Is: clusterID}
	}
	var output *ErrSourceChanged
	for t, was := range s.TopicIDs {
		if is := topicIDs[t]; is != was {
			if is == "" {
				is = "gone"
			}
			e := &ErrSourceChanged{What: "topic " + t, Was: was, Is: is, Output: t != s.Topic}
			if !e.Output { // the worse of two
				return e
			}
			output = e
		}
	}
	if output != nil {
		return output
	}
	return nil
}

// ReplaceSource retires a source whose topics were recreated and adds the one that is there now. If only outputs changed, the source
// stays and goes on with the new ones.
func ReplaceSource(ctx context.Context, tx pgx.Tx, old, now Source, why string) (int16, error) {
	if old.TopicIDs[old.Topic] == now.TopicIDs[now.Topic] && old.ClusterID == now.ClusterID {
		outputs := map[string]string{}
		for t, id := range now.TopicIDs {
			if t != now.Topic {
				outputs[t] = id
			}
		}
		b, err := json.Marshal(outputs)
		if err != nil {
			return 0, err
		}
		if _, err := tx.Exec(ctx, `UPDATE sources SET outputs = $2, retired_why = $3 WHERE source_id = $1`, old.ID, b, why); err != nil {
			return 0, fmt.Errorf("replace outputs of source %s: %w", old.Topic, err)
		}
		return old.ID, nil
	}
	if _, err := tx.Exec(ctx, `UPDATE sources SET retired_at = now(), retired_why = $2 WHERE source_id = $1`, old.ID, why); err != nil {
		return 0, fmt.Errorf("retire source %s: %w", old.Topic, err)
	}
	return AddSource(ctx, tx, now)
}
