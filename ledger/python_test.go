package ledger

import (
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// python runs doc/verify_ledger.py over an export.
func python(t *testing.T, export []byte) (string, int) {
	t.Helper()
	path, err := exec.LookPath("python3")
	require.NoError(t, err, "apt-get install python3")
	cmd := exec.Command(path, "../doc/verify_ledger.py")
	cmd.Stdin = bytes.NewReader(export)
	out, err := cmd.CombinedOutput()
	require.NotNil(t, cmd.ProcessState, err)
	return string(out), cmd.ProcessState.ExitCode()
}

const csvHeader = "source_id,source_partition,seq,kind,from_offset,to_offset,records,rows,dead_letters,events,digest,prev_hash,hash,epoch,worker,why,committed_at,captured_at,who,build,schemas,geo"

// exported is entries as psql --csv prints them, in a session of some time zone.
func exported(es []Entry, hashes [][]byte, zone *time.Location) []byte {
	var b bytes.Buffer
	b.WriteString(csvHeader + "\n")
	w := csv.NewWriter(&b)
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	x := func(v []byte) string { return `\x` + hex.EncodeToString(v) }
	for i := range es {
		e := &es[i]
		at := e.CommittedAt.In(zone).Format("2006-01-02 15:04:05.999999-07")
		_ = w.Write([]string{
			n(int64(e.SourceID)), n(int64(e.Partition)), n(e.Seq), string(e.Kind), n(e.From), n(e.To), n(e.Records), n(e.Rows), n(e.DeadLetters), n(e.Events),
			x(e.Digest), x(e.PrevHash), x(hashes[i]), n(e.Epoch), e.Worker, e.Why, at, at, e.Who, e.Build, e.Schemas, e.Geo,
		})
	}
	w.Flush()
	return b.Bytes()
}

// Thirty lines of another language, written from the description, come to the same hashes, and find what was bent.
func TestPythonVerifies(t *testing.T) {
	var es []Entry
	var hashes [][]byte
	var prev []byte
	for i, why := range []string{"", "a \"quoted\"\nreason, with a comma", "Grüße \U0001F600", "y", "z"} {
		e := entry()
		e.Partition, e.Seq, e.Why, e.PrevHash = 3, int64(i)+1, why, prev
		e.CommittedAt = time.UnixMicro(1_700_000_000_000_000 + []int64{0, 1, 100_000, 999_999, -60_000_000 * 500_000}[i])
		prev = e.Hash()
		es, hashes = append(es, e), append(hashes, prev)
	}
	for _, zone := range []*time.Location{time.UTC, time.FixedZone("", 2*3600), time.FixedZone("", -11*3600)} {
		out, code := python(t, exported(es, hashes, zone))
		require.Zero(t, code, out)
		require.Equal(t, fmt.Sprintf("source 1 partition 3: seq 5 %x\n", prev), out)
	}
	good := string(exported(es, hashes, time.UTC))
	for change, says := range map[[2]string]string{
		{"capture,4,5,6,7", "capture,4,5,6,8"}:                 "seq 1: its fields do not make its hash",
		{hex.EncodeToString(hashes[2]), "00"}:                  "seq 3: its fields do not make its hash",
		{"Grüße", "Gruesse"}:                                   "seq 3: its fields do not make its hash",
		{"1,3,2,capture", "1,3,7,capture"}:                     "seq 7: comes after seq 1",
		{",1>2,g\n", ",1>2,h\n"}:                               "its fields do not make its hash",
		{":20.000001+00", ":20.000002+00"}:                     "seq 2: its fields do not make its hash",
		{`\x0a,\x` + hex.EncodeToString(hashes[0]), `\x0a,\x`}: "seq 2: prev_hash is not the hash of the entry before",
	} {
		bent := strings.Replace(good, change[0], change[1], 1)
		require.NotEqual(t, good, bent, change[0])
		out, code := python(t, []byte(bent))
		require.Equal(t, 3, code, out)
		require.Contains(t, out, says, change[0])
	}
	_, code := python(t, []byte(csvHeader+"\n"))
	require.Equal(t, 3, code, "nothing is no chain")
}
