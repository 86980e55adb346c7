package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/exactly-pipeline/exactly/internal/wait"
)

// Every command either changes something, and then has --dry-run, or is here with the reason why it needs none. A new command fails this test until
// it is one or the other.
var needNoDryRun = map[string]string{
	"audit": "reads; --mark and --anchor note what was proven", "config": "", "config check": "reads", "config print": "reads", "console": "serves; replays by it have a dry run of their own", "console token": "prints", "completion": "", "completion bash": "prints",
	"completion fish": "prints", "completion powershell": "prints", "completion zsh": "prints", "demo": "a stack of its own, gone at its end", "dev": "a stack of its own",
	"dlq": "", "dlq export": "reads", "dlq list": "reads", "dlq show": "reads", "doctor": "reads", "heal": "", "health": "reads", "ledger": "", "ledger keygen": "two new files, never over others",
	"ledger show": "reads", "ledger verify": "reads", "man": "prints, or writes its pages", "migrate status": "reads", "offsets": "", "offsets show": "reads", "run": "is the work itself",
	"schema": "", "schema check": "reads", "schema show": "reads", "txn": "", "txn list": "reads", "version": "prints",
}

var flag = regexp.MustCompile(`(?m)^ +--dry-run `)

func TestWhatChangesHasADryRun(t *testing.T) {
	s := plain(t)
	left := maps.Clone(needNoDryRun)
	for _, c := range commands(t, s) {
		help := s.ok(append(strings.Fields(c), "--help")...)
		_, exempt := left[c]
		require.NotEqual(t, exempt, flag.MatchString(help), "exactly %s: a --dry-run, or a word in needNoDryRun, and not both", c)
		delete(left, c)
	}
	require.Empty(t, left, "there are no such commands")
}

// state is all that a command could change: every table but those that say when somebody looked, every topic's ends, every subject's versions.
func (s *shell) state() string {
	s.t.Helper()
	var b strings.Builder
	conn, err := pgx.Connect(s.ctx, s.env["EXACTLY_POSTGRES_DSN"])
	require.NoError(s.t, err)
	defer conn.Close(s.ctx)
	rows, err := conn.Query(s.ctx, `SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') ORDER BY 1`)
	require.NoError(s.t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(s.t, err)
	for _, table := range tables {
		var sum string
		require.NoError(s.t, conn.QueryRow(s.ctx, `SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM `+pgx.Identifier{table}.Sanitize()+` t`).Scan(&sum))
		fmt.Fprintln(&b, table, sum)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(s.env["EXACTLY_KAFKA_BROKERS"], ",")...))
	require.NoError(s.t, err)
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(s.ctx)
	require.NoError(s.t, err)
	var lines []string
	ends.Each(func(o kadm.ListedOffset) {
		if strings.HasPrefix(o.Topic, s.env["EXACTLY_GROUP"]+".") {
			lines = append(lines, fmt.Sprint(o.Topic, " ", o.Partition, " ", o.Offset))
		}
	})
	reg, err := sr.NewClient(sr.URLs(s.env["EXACTLY_REGISTRY_URL"]))
	require.NoError(s.t, err)
	subjects, err := reg.Subjects(s.ctx)
	require.NoError(s.t, err)
	for _, subject := range subjects {
		if strings.HasPrefix(subject, s.env["EXACTLY_GROUP"]+".") {
			versions, err := reg.SubjectVersions(s.ctx, subject)
			require.NoError(s.t, err)
			lines = append(lines, fmt.Sprint(subject, versions))
		}
	}
	slices.Sort(lines)
	return b.String() + strings.Join(lines, "\n")
}

// until waits for the thing itself.
func (s *shell) until(what string, ok func() bool) {
	s.t.Helper()
	for !ok() {
		require.NoError(s.t, wait.For(s.ctx, 100*time.Millisecond), "in vain: %s", what)
	}
}

// work has clicks processed by a worker, some of them dead letters, and ends it.
func (s *shell) work() {
	s.t.Helper()
	s.ok("generate", "--rate", "0", "--count", "400", "--seed", "1", "--bad-share", "0.05")
	worker := s.command("run")
	require.NoError(s.t, worker.Start())
	s.until("all is in both sinks", func() bool {
		_, _, code := s.run("audit", "--settled", "--quiet")
		return code == 0
	})
	require.NoError(s.t, worker.Process.Signal(syscall.SIGTERM))
	require.NoError(s.t, worker.Wait())
}

// A dry run says what would be, exits with 0, and leaves everything as it was.
func TestDryRunsChangeNothing(t *testing.T) {
	s := onStack(t)
	empty := s.state()
	for _, args := range [][]string{{"setup"}, {"migrate"}, {"schema", "register"}} {
		out := s.ok(append(args, "--dry-run")...)
		require.Regexp(t, `(?m)^would `, out, "%v", args)
		require.Equal(t, empty, s.state(), "%v", args)
	}
	would := s.ok("setup", "--dry-run")
	for _, w := range []string{"would apply migration ", "would create topic " + s.env["EXACTLY_TOPICS_INPUT"] + ": 2 partitions", "would register schema " + s.env["EXACTLY_TOPICS_INPUT"] + "-value", "would add a source: "} {
		require.Contains(t, would, w)
	}
	s.ok("setup")
	require.Equal(t, "nothing to change\n", s.ok("setup", "--dry-run"))
	require.Equal(t, "nothing to change\n", s.ok("migrate", "--dry-run"))
	s.work()

	before := s.state()
	letters := struct {
		Letters []struct{ Origin string } `json:"letters"`
	}{}
	require.NoError(t, json.Unmarshal([]byte(s.ok("dlq", "list", "--json")), &letters))
	require.NotEmpty(t, letters.Letters)
	for _, c := range []struct {
		args string
		says string
	}{
		{"setup", "nothing to change"}, {"migrate", "nothing to change"}, {"schema register", "nothing to change"},
		{"offsets hold --partition 0 --reason x", "would be held at stored offset"},
		{"offsets release --all", "nothing to do"}, {"offsets release --partition 1", "was not held"},
		{"offsets restore --all --reason x", "nothing to do"},
		{"heal postgres", "nothing to heal"}, {"heal kafka", "nothing to heal"},
		{"prune", "nothing to prune"}, {"erase --user 1 --reason x", "nothing to erase"},
		{"ledger archive --out . --reason x", "nothing to archive"},
		{"dlq replay --all", fmt.Sprintf("%d dead letters would be replayed", len(letters.Letters))},
		{"generate --count 3 --seed 9", `"user_id":`},
		{"chaos --kills 2 --zombies 1 --seed 3", "worker frozen"},
	} {
		out := s.ok(append(strings.Fields(c.args), "--dry-run")...)
		require.Contains(t, out, c.says, "exactly %s", c.args)
		require.Equal(t, before, s.state(), "exactly %s --dry-run", c.args)
	}
	s.ok("offsets", "hold", "--partition", "0", "--reason", "to see what release says")
	held := s.state()
	require.NotEqual(t, before, held, "it does tell: a hold is seen")
	require.Contains(t, s.ok("offsets", "release", "--all", "--dry-run"), "would be released; it is held by ")
	require.Equal(t, held, s.state())
	require.Contains(t, s.ok("offsets", "release", "--all"), "released; it was held by")
}

// What a dry run of generate prints, generate reads.
func TestGeneratedIsReadBack(t *testing.T) {
	s := plain(t)
	made := s.ok("generate", "--dry-run", "--count", "25", "--seed", "4")
	require.Equal(t, 25, strings.Count(made, "\n"))
	require.Equal(t, made, s.ok("generate", "--dry-run", "--count", "25", "--from", s.file("clicks.ndjson", made)))
}

// What would be aborted is said, and is open still.
func TestDryAbort(t *testing.T) {
	s := onStack(t)
	s.ok("setup")
	id := s.env["EXACTLY_GROUP"] + "-w"
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(s.env["EXACTLY_KAFKA_BROKERS"], ",")...), kgo.TransactionalID(id), kgo.DefaultProduceTopic(s.env["EXACTLY_TOPICS_OUTPUT"]))
	require.NoError(t, err)
	defer cl.Close()
	require.NoError(t, cl.BeginTransaction())
	require.NoError(t, cl.ProduceSync(s.ctx, kgo.StringRecord("x")).FirstErr())
	out, errs, code := s.run("txn", "abort", id, "--dry-run")
	require.Zero(t, code, errs)
	require.Contains(t, errs, "aborts the open transaction of transactional id "+id)
	require.Equal(t, "nothing was done\n", out)
	require.Contains(t, s.ok("txn", "list"), id)
	require.NoError(t, cl.EndTransaction(s.ctx, kgo.TryCommit), "it was left alone")
}
