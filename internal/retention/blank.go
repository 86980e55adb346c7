package retention

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Blanked says how much was blanked, and in which time partitions.
type Blanked struct {
	Rows, Messages, DeadLetters int64
	Tables                      []string // for VACUUM
}

// Blank takes out of Postgres what makes the person behind source records identifiable: of a row user, session, url, address and country; of an
// outbox message and a dead letter key, value and headers. The coordinates stay, with the times and the build of the geo database. Of a message
// the salted hash is kept, and the salt goes: the ledger's digests can be recomputed, the bytes can't be guessed.
//
// offsets are ascending, and published: bytes that Kafka is owed are not to be blanked. A heal that has rebuilt rows from Kafka does it to what
// was erased before in its own transaction (Erasures). What is blank already is left as it is.
func Blank(ctx context.Context, tx pgx.Tx, source int16, partition int32, offsets []int64) (Blanked, error) {
	var b Blanked
	touched := map[string]bool{}
	what := func(table string, err error) error {
		return fmt.Errorf("blank %s of source %d partition %d: %w", table, source, partition, err)
	}
	count := func(n *int64, sql string) error {
		rows, err := tx.Query(ctx, sql, source, partition, offsets)
		if err != nil {
			return err
		}
		var t string
		_, err = pgx.ForEachRow(rows, []any{&t}, func() error {
			*n++
			touched[t] = true
			return nil
		})
		return err
	}
	err := count(&b.Rows, `UPDATE enriched_clicks SET user_id = 0, session_id = '', url = '', ip = '::', country = 'ZZ'
		WHERE source_id = $1 AND source_partition = $2 AND source_offset = ANY($3) AND user_id <> 0 RETURNING tableoid::regclass::text`)
	if err != nil {
		return b, what("enriched_clicks", err)
	}
	err = count(&b.DeadLetters, `UPDATE dead_letters SET key = NULL, value = NULL, headers = '\x00'
		WHERE source_id = $1 AND source_partition = $2 AND source_offset = ANY($3) AND (key IS NOT NULL OR value IS NOT NULL OR headers <> '\x00')
		RETURNING tableoid::regclass::text`)
	if err != nil {
		return b, what("dead_letters", err)
	}
	if err := blankOutbox(ctx, tx, source, partition, offsets, &b, touched); err != nil {
		return b, what("outbox", err)
	}
	b.Tables = slices.Sorted(maps.Keys(touched))
	return b, nil
}

// hashed are messages of one time partition and their hashes.
type hashed struct {
	at   []pgtype.TID
	hash [][]byte
}

func blankOutbox(ctx context.Context, tx pgx.Tx, source int16, partition int32, offsets []int64, b *Blanked, touched map[string]bool) error {
	rows, err := tx.Query(ctx, `SELECT tableoid::regclass::text, ctid, source_offset, seq, topic, partition, "timestamp", key, value, headers, salt FROM outbox
		WHERE source_id = $1 AND source_partition = $2 AND source_offset = ANY($3) AND erased_at IS NULL FOR UPDATE`, source, partition, offsets)
	if err != nil {
		return err
	}
	found := map[string]*hashed{}
	var table string
	var at pgtype.TID
	var m outbox.Message
	var headers, salt []byte
	_, err = pgx.ForEachRow(rows, []any{&table, &at, &m.SourceOffset, &m.Seq, &m.Topic, &m.Partition, &m.TimestampMs, &m.Key, &m.Value, &headers, &salt}, func() error {
		var err error
		if m.Headers, err = outbox.ParseHeaders(headers); err != nil {
			return fmt.Errorf("offset %d: %w", m.SourceOffset, err)
		}
		var hash []byte // without a salt, as before salts were kept, a hash would tell what the bytes were to whoever guesses them
		if len(salt) == len(ledger.Salt{}) {
			h := ledger.MessageHash(ledger.Salt(salt), &m)
			hash = h[:]
		}
		h := found[table]
		if h == nil {
			h = &hashed{}
			found[table] = h
		}
		h.at, h.hash = append(h.at, at), append(h.hash, hash)
		return nil
	})
	if err != nil {
		return err
	}
	for table, h := range found {
		touched[table] = true
		tag, err := tx.Exec(ctx, fmt.Sprintf(`UPDATE ONLY %s o SET message_hash = u.hash, key = NULL, value = NULL, headers = '\x00', salt = NULL, erased_at = now()
			FROM unnest($1::tid[], $2::bytea[]) AS u (at, hash) WHERE o.ctid = u.at`, table), h.at, h.hash)
		if err != nil {
			return err
		}
		if tag.RowsAffected() != int64(len(h.at)) {
			return fmt.Errorf("%s: %d of %d messages were there to be blanked", table, tag.RowsAffected(), len(h.at))
		}
		b.Messages += tag.RowsAffected()
	}
	return nil
}

// ErasureDigest is what the ledger's entry of kind erase has of its row in erasures: SHA-256 of source id, partition, number of offsets, and the
// offsets in ascending order, 8 bytes big-endian each.
func ErasureDigest(source int16, partition int32, offsets []int64) []byte {
	b := make([]byte, 0, 24+8*len(offsets))
	for _, v := range []int64{int64(source), int64(partition), int64(len(offsets))} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	for _, o := range offsets {
		b = binary.BigEndian.AppendUint64(b, uint64(o))
	}
	d := sha256.Sum256(b)
	return d[:]
}
