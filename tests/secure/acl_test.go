//go:build e2e

package secure

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/exactly-pipeline/exactly/internal/acl"
	"github.com/exactly-pipeline/exactly/internal/security"
)

// commands are the lines `exactly setup --print-acls` prints for a role and principal.
func (w *world) commands(role acl.Role, principal string) []string {
	w.t.Helper()
	var out []string
	for _, line := range strings.Split(w.exactly("setup", "--print-acls="+string(role), "--principal", principal), "\n") {
		if line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	require.NotEmpty(w.t, out)
	return out
}

// allow does what Kafka's tool would do with a line, as a shell reads it: every word of it must be known.
func (w *world) allow(line string) {
	w.t.Helper()
	out, err := exec.Command("sh", "-c", `kafka_acls() { printf '%s\n' "$@"; }; `+strings.Replace(line, "kafka-acls.sh", "kafka_acls", 1)).Output()
	require.NoError(w.t, err, line)
	words := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	require.Equal(w.t, "--bootstrap-server", words[0], line)
	b := kadm.NewACLs()
	pattern := kadm.ACLPatternLiteral
	words = words[2:]
	for len(words) > 0 {
		flag, value := words[0], ""
		if flag != "--add" {
			value = words[1]
			words = words[1:]
		}
		words = words[1:]
		switch flag {
		case "--add":
		case "--allow-principal":
			b = b.Allow(value)
		case "--operation":
			b = b.Operations(map[string]kadm.ACLOperation{"Read": kmsg.ACLOperationRead, "Write": kmsg.ACLOperationWrite, "Create": kmsg.ACLOperationCreate, "Describe": kmsg.ACLOperationDescribe,
				"DescribeConfigs": kmsg.ACLOperationDescribeConfigs}[value])
		case "--resource-pattern-type":
			require.Equal(w.t, "prefixed", value)
			pattern = kadm.ACLPatternPrefixed
		case "--topic":
			b = b.Topics(value)
		case "--group":
			b = b.Groups(value)
		case "--transactional-id":
			b = b.TransactionalIDs(value)
		default:
			w.t.Fatalf("what is %s in %q?", flag, line)
		}
	}
	res, err := shared.adm.Kadm().CreateACLs(w.ctx, b.AllowHosts("*").ResourcePatternType(pattern))
	require.NoError(w.t, err)
	require.Len(w.t, res, 1)
	require.NoError(w.t, res[0].Err)
}

// permit gives a principal all the rights of roles but the i-th of the last, -1 for all of them, and waits until the broker knows.
func (w *world) permit(principal string, without int, roles ...acl.Role) {
	w.t.Helper()
	distinct := map[string]bool{} // several roles want some of them
	for i, role := range roles {
		lines := w.commands(role, principal)
		if i == len(roles)-1 && without >= 0 {
			lines = slices.Delete(lines, without, without+1)
		}
		for _, line := range lines {
			w.allow(line)
			line, _, _ = strings.Cut(line, " # ")
			distinct[line] = true
		}
	}
	require.Eventually(w.t, func() bool {
		b := kadm.NewACLs().Allow(principal).AllowHosts().Deny().DenyHosts().AnyResource().Operations().ResourcePatternType(kadm.ACLPatternAny)
		res, err := shared.adm.Kadm().DescribeACLs(w.ctx, b)
		have := 0
		for _, r := range res {
			have += len(r.Described)
		}
		return err == nil && have == len(distinct)
	}, patience, 50*time.Millisecond, "the rights of %s", principal)
}

// user makes a SCRAM user, and waits until the broker knows.
func (w *world) user(name string) {
	w.t.Helper()
	res, err := shared.adm.Kadm().AlterUserSCRAMs(w.ctx, nil, []kadm.UpsertSCRAM{{User: name, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: password(name)}})
	require.NoError(w.t, err)
	require.NoError(w.t, res.Error())
	require.Eventually(w.t, func() bool { return security.Probe(w.ctx, &w.as(name).config().Kafka) == nil }, patience, 50*time.Millisecond, "user %s", name)
}

// The pipeline works over SCRAM and TLS with just the rights that are printed, each role under a user of its own; a worker is killed on
// the way, and its transaction ended by the other.
func TestLeastRights(t *testing.T) {
	w := newWorld(t)
	for _, role := range acl.Roles {
		if role == acl.Worker {
			w.permit("User:worker", -1, role, acl.Pointers)
		} else if role != acl.Pointers {
			w.permit("User:"+string(role), -1, role)
		}
	}
	require.Contains(t, w.as("setup").exactly("setup"), "created topic "+w.config().Topics.Input)
	require.Contains(t, w.as("setup").exactly("setup"), "nothing to change")
	w.as("generate").generate(3000)
	one := w.as("worker").with("worker.id", "one").start("run")
	one.says("consuming")
	two := w.as("worker").with("worker.id", "two", "kafka.client", "franz").start("run")
	two.says("rebalance: assigned")
	require.NoError(t, one.cmd.Process.Signal(syscall.SIGKILL))
	<-one.done
	w.as("generate").generate(2000)
	w.as("audit").settled(5000)
	require.NotContains(t, two.out.String(), "AUTHORIZATION", "something was tried that was not allowed")
	// Long enough for each connection to have shown its credentials again.
	begin := time.Now()
	for n := 0; time.Since(begin) < 2*reauth; n += 100 {
		w.as("generate").generate(100)
	}
	w.as("audit").settled(5100)
	// Dead letters handed in again.
	w.produce([]byte("no click"))
	w.as("audit").settled(5101)
	require.Contains(t, w.as("replay").exactly("dlq", "replay", "--class", "not_avro", "--reason", "r", "--wait", "60s"), "1 captured, 1 of them dead letters again")
	require.NotContains(t, two.out.String(), "AUTHORIZATION", "something was tried that was not allowed")
	two.stop()
	require.NotContains(t, two.out.String(), "\tERROR\t")
	w.as("worker").exactly("offsets", "show")
}

// produce writes a record to the input, as somebody who may do everything.
func (w *world) produce(value []byte) {
	w.t.Helper()
	cl, err := security.NewClient(&w.config().Kafka)
	require.NoError(w.t, err)
	defer cl.Close()
	require.NoError(w.t, cl.ProduceSync(w.ctx, &kgo.Record{Topic: w.config().Topics.Input, Value: value}).FirstErr())
}

// Each printed right is needed: without it a command fails, and says which one it lacks.
func TestEachRightIsNeeded(t *testing.T) {
	w := newWorld(t)
	w.exactly("setup")
	w.exactly("generate", "--rate", "0", "--count", "50", "--seed", "1", "--bad-share", "0.3") // so that there are dead letters to be read
	p := w.start("run")
	p.says("consuming")
	w.settled(50)
	p.stop()
	for _, role := range []acl.Role{acl.Setup, acl.Generate, acl.Audit, acl.Worker} { // one after the other: the last publishes what no audit would let pass
		t.Run(string(role), func(t *testing.T) {
			rules := acl.Rules(w.config(), role)
			for i := -1; i < len(rules); i++ {
				name := "all"
				if i >= 0 {
					name = fmt.Sprint(i, " ", rules[i].Operation, " on ", rules[i].Type)
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					w.without(t, role, i)
				})
			}
		})
	}
}

// without has a role's command or operations done by a user who lacks its i-th right; -1: none.
func (w *world) without(t *testing.T, role acl.Role, i int) {
	user := fmt.Sprintf("%s-without-%d-%d", role, i, worlds.Add(1))
	w = w.with()
	w.t, w.dir = t, t.TempDir()
	switch role {
	case acl.Setup: // topics that are not there yet
		w = w.with("topics.input", user+".in", "topics.output", user+".out", "topics.dlq", user+".dlq", "topics.replay", user+".replay",
			"ledger.heads_topic", user+".heads", "group", user)
	case acl.Worker: // nobody else's rebalances
		w = w.with("group", user)
		w.exactly("setup")
	}
	rules := acl.Rules(w.config(), role)
	w.user(user)
	w.permit("User:"+user, i, role)
	as := w.as(user)
	switch role {
	case acl.Setup:
		expect(t, i, rules, func() (string, int) { return as.try("setup") })
	case acl.Generate:
		expect(t, i, rules, func() (string, int) { return as.try("generate", "--rate", "0", "--count", "10") })
	case acl.Audit:
		expect(t, i, rules, func() (string, int) {
			if out, code := as.try("audit"); code != 0 {
				return out, code
			}
			return as.try("ledger", "verify")
		})
	case acl.Worker:
		as.operations(i, rules)
	}
}

// expect runs a command that must do its work if nothing is missing, and else fail and name what is.
func expect(t *testing.T, missing int, rules []acl.Rule, run func() (string, int)) {
	t.Helper()
	out, code := run()
	if missing < 0 {
		require.Zero(t, code, "%s", out)
		return
	}
	require.Equal(t, 1, code, "nothing failed without %s\n%s", &rules[missing], out)
	require.Contains(t, out, "kafka does not allow it: we need ")
	require.Contains(t, out, rules[missing].String(), "%s", out)
	t.Log(out)
}

// A right that is taken away from workers that work: they say which, not at each try, and go on when it is given back.
func TestRightTakenAway(t *testing.T) {
	w := newWorld(t)
	user := "robbed-" + w.config().Group
	w.user(user)
	w.permit("User:"+user, -1, acl.Roles...)
	in := w.as(user)
	ps := in.through(100)
	sent := 100
	for _, r := range []acl.Rule{
		{Operation: acl.Write, Type: acl.Topic, Name: w.config().Topics.Output},
		{Operation: acl.Read, Type: acl.Topic, Name: w.config().Topics.Input},
		{Operation: acl.Read, Type: acl.Group, Name: w.config().Group},
		{Operation: acl.Write, Type: acl.TransactionalID, Name: w.config().Group + "-", Prefixed: true},
	} {
		ps.each((*process).mark)
		b := kadm.NewACLs().Allow("User:" + user).AllowHosts("*").Deny().DenyHosts().ResourcePatternType(kadm.ACLPatternAny)
		op := map[acl.Operation]kadm.ACLOperation{acl.Read: kmsg.ACLOperationRead, acl.Write: kmsg.ACLOperationWrite}[r.Operation]
		switch b = b.Operations(op); r.Type {
		case acl.Topic:
			b = b.Topics(r.Name)
		case acl.Group:
			b = b.Groups(r.Name)
		case acl.TransactionalID:
			b = b.TransactionalIDs(r.Name)
		}
		res, err := shared.adm.Kadm().DeleteACLs(w.ctx, b)
		require.NoError(t, err)
		gone := 0
		for _, d := range res {
			require.NoError(t, d.Err)
			gone += len(d.Deleted)
		}
		require.Equal(t, 1, gone)
		w.generate(200)
		sent += 200
		ps.each(func(p *process) { p.says("we need " + r.String()) })
		w.allow(r.Command("x:1", "User:"+user))
		w.settled(sent)
		ps.each(func(p *process) {
			require.LessOrEqual(t, p.count("we need "), 12, "not at each try:\n%s", p.out.Tail())
		})
	}
	ps.stop()
}

// As JSON they are the same.
func TestRightsAsJSON(t *testing.T) {
	w := newWorld(t)
	var rules []struct {
		acl.Rule
		Principal, Command string
	}
	require.NoError(t, json.Unmarshal([]byte(w.exactly("setup", "--print-acls", "--principal", "User:x", "--json")), &rules))
	var want []string
	for _, role := range acl.Roles {
		for _, line := range w.commands(role, "User:x") {
			line, _, _ = strings.Cut(line, " # ")
			want = append(want, strings.TrimSpace(line))
		}
	}
	var got []string
	for _, r := range rules {
		got = append(got, r.Command)
		require.Equal(t, "User:x", r.Principal)
	}
	require.Equal(t, want, got)
}
