package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/ledger"
)

// deed appends an entry to partition 0's chain, everywhere.
func (w *world) deed(kind ledger.Kind, digest []byte) int64 {
	o := w.offsets[0]
	w.rewrite(func() {
		w.ledger = append(w.ledger, ledger.Entry{SourceID: 1, Partition: 0, Seq: o.seq + 1, Kind: kind, From: o.next, To: o.next, Digest: digest, Who: "ada", Why: "asked for", CommittedAt: day2})
	})
	return o.seq
}

func erasureDigest(offsets ...int64) []byte {
	var b []byte
	for _, v := range append([]int64{1, 0, int64(len(offsets))}, offsets...) {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	d := sha256.Sum256(b)
	return d[:]
}

// erase blanks a click and a dead letter of partition 0, as exactly erase does.
func (w *world) erase(offsets ...int64) {
	for _, o := range offsets {
		m := w.msg(0, o)
		hash := ledger.MessageHash(m.salt, &m.Message)
		_, err := w.db.Exec(w.ctx, `UPDATE enriched_clicks SET user_id = 0, session_id = '', url = '', ip = '::', country = 'ZZ' WHERE source_partition = 0 AND source_offset = $1`, o)
		require.NoError(w.t, err)
		_, err = w.db.Exec(w.ctx, `UPDATE dead_letters SET key = NULL, value = NULL, headers = '\x00' WHERE source_partition = 0 AND source_offset = $1`, o)
		require.NoError(w.t, err)
		w.exec(`UPDATE outbox SET key = NULL, value = NULL, headers = '\x00', salt = NULL, message_hash = $2, erased_at = now() WHERE source_partition = 0 AND source_offset = $1`, o, hash[:])
	}
	seq := w.deed(ledger.Erase, erasureDigest(offsets...))
	w.exec(`INSERT INTO erasures (source_id, source_partition, ledger_seq, erasure, offsets, rows, messages, dead_letters, who, why) VALUES (1, 0, $1, gen_random_uuid(), $2, 1, 2, 1, 'ada', 'asked for')`, seq, offsets)
}

func TestErased(t *testing.T) {
	t.Parallel()
	erased := func(t *testing.T) *world {
		w := consistent(t)
		w.store(ownHash)
		w.erase(1, 8)
		return w
	}
	t.Run("is no finding", func(t *testing.T) {
		t.Parallel()
		w := erased(t)
		rep := w.audit()
		require.True(t, rep.Clean(), sentences(rep))
		require.EqualValues(t, 2, rep.Partitions[0].Erased)
		require.Contains(t, fmt.Sprint(rep.Notes), "2 records were erased")
		require.Equal(t, "erase", rep.Deeds[len(rep.Deeds)-2].Kind) // partition 1's start comes behind
	})
	for name, c := range map[string]struct {
		sql  string
		want []string
	}{
		"a row that is not blank":          {`UPDATE enriched_clicks SET url = 'x' WHERE source_partition = 0 AND source_offset = 1`, []string{"different rows 0@1"}},
		"a dead letter that is not blank":  {`UPDATE dead_letters SET value = 'x' WHERE source_partition = 0 AND source_offset = 8`, []string{"different dead_letters 0@8"}},
		"an outbox message that is not":    {`UPDATE outbox SET value = 'x' WHERE source_partition = 0 AND source_offset = 1`, []string{"different outbox 0@1"}},
		"another hash":                     {`UPDATE outbox SET message_hash = sha256('x') WHERE source_partition = 0 AND source_offset = 1`, []string{"ledger_digest ledger 0#2"}},
		"a row gone":                       {`DELETE FROM enriched_clicks WHERE source_partition = 0 AND source_offset = 1`, []string{"ledger_gap ledger 0#2", "missing rows 0@1"}},
		"blank without an entry":           {`UPDATE enriched_clicks SET user_id = 0, session_id = '', url = '', ip = '::', country = 'ZZ' WHERE source_partition = 0 AND source_offset = 2`, []string{"different rows 0@2"}},
		"a list that the ledger knows not": {`INSERT INTO erasures (source_id, source_partition, ledger_seq, erasure, offsets, rows, messages, dead_letters, who, why) VALUES (1, 0, 2, gen_random_uuid(), '{2}', 1, 1, 0, 'x', 'x')`, []string{"ledger_digest ledger 0#2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := erased(t)
			w.exec(c.sql)
			rep := w.audit()
			require.Equal(t, c.want, said(rep), sentences(rep))
		})
	}
}

// What was pruned is out of reach, if the ledger vouches for the list of it.
func TestPruned(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		listed string
		want   []string
	}{
		"by an entry":    {"rows 7", []string{}},
		"another length": {"rows 6", []string{"ledger_digest ledger 0#5"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := consistent(t)
			w.store(ownHash)
			d := sha256.Sum256([]byte("enriched_clicks_20260101 1 0 0 9 7 11"))
			seq := w.deed(ledger.Prune, d[:])
			records := 7
			if c.listed == "rows 6" {
				records = 6
			}
			w.exec(`INSERT INTO pruned (table_name, time_partition, source_id, source_partition, from_offset, to_offset, records, published, ledger_seq, who, why)
				VALUES ('enriched_clicks', 'enriched_clicks_20260101', 1, 0, 0, 9, $1, 11, $2, 'ada', 'old')`, records, seq)
			if len(c.want) == 0 {
				w.exec(`DROP TABLE enriched_clicks_20260101`)
			}
			rep := w.audit()
			require.Equal(t, c.want, said(rep), sentences(rep))
			if len(c.want) == 0 {
				require.EqualValues(t, 9, rep.Partitions[0].VouchedFrom)
				require.Contains(t, fmt.Sprint(rep.Notes), "pruned below offset 9")
			}
		})
	}
}
