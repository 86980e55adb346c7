//go:build e2e

package secure

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/exactly-pipeline/exactly/internal/acl"
	"github.com/exactly-pipeline/exactly/internal/testca"
)

// through runs the whole pipeline as w comes to the brokers, with a worker of each client.
func (w *world) through(clicks int) workers {
	w.t.Helper()
	w.exactly("setup")
	w.generate(clicks)
	ps := w.workers()
	w.settled(clicks)
	for _, p := range ps {
		p.says("rebalance: assigned")
	}
	return ps
}

type workers []*process

// workers starts one of each client.
func (w *world) workers() workers {
	var ps workers
	for name := range clients {
		ps = append(ps, w.with("worker.id", name, "kafka.client", name).start("run"))
	}
	return ps
}

func (ps workers) stop() {
	for _, p := range ps {
		p.stop()
		p.w.t.Log(p.out.Tail())
	}
}

// each asks something of every worker.
func (ps workers) each(f func(p *process)) {
	for _, p := range ps {
		f(p)
	}
}

// total is how often all of them wrote text.
func (ps workers) total(text string) int {
	n := 0
	ps.each(func(p *process) { n += p.count(text) })
	return n
}

// With mutual TLS the certificate is who we are.
func TestMutualTLS(t *testing.T) {
	w := newWorld(t)
	w.permit("User:CN=all in one", -1, acl.Roles...)
	mine := shared.ca.Client("all in one")
	in := w.at(mutual).with("kafka.tls.cert", mine.Cert, "kafka.tls.key", mine.Key)
	in.through(500).stop()
	stranger, old := testca.New(t).Client("all in one"), shared.ca.ExpiredClient("all in one")
	for _, c := range []*world{w.at(mutual), w.at(mutual).with("kafka.tls.cert", stranger.Cert, "kafka.tls.key", stranger.Key), w.at(mutual).with("kafka.tls.cert", old.Cert, "kafka.tls.key", old.Key)} {
		for _, args := range [][]string{{"setup"}, {"generate", "--count", "1"}, {"audit"}} {
			c.refused("refuses our side of the TLS handshake", args...)
		}
	}
}

// refused runs a command that must end with 1 within 15 seconds and say so.
func (w *world) refused(says string, args ...string) string {
	w.t.Helper()
	began := time.Now()
	out, code := w.try(args...)
	require.Equal(w.t, 1, code, "exactly %v:\n%s", args, out)
	require.Contains(w.t, out, says, "exactly %v", args)
	if says != "has expired" { // which no setting mends
		require.Contains(w.t, out, "EXACTLY_", "exactly %v names the setting", args)
	}
	require.Less(w.t, time.Since(began), 15*time.Second, "exactly %v", args)
	w.t.Log(strings.TrimSpace(out))
	return out
}

// Tokens are fetched, refreshed in both clients before they end, and fetched with the secret of now.
func TestOAuthBearer(t *testing.T) {
	w := newWorld(t)
	client := "client-" + w.config().Group
	shared.oidc.set(client, password("one"), 10*time.Second)
	w.permit("User:"+client, -1, acl.Roles...)
	secret := w.file("client-secret", password("one"))
	in := w.at(bearer).with("kafka.sasl.mechanism", "OAUTHBEARER", "kafka.sasl.token_url", shared.oidc.tokenURL(), "kafka.sasl.token_ca", shared.ca.File,
		"kafka.sasl.client_id", client, "kafka.sasl.client_secret_file", secret, "kafka.sasl.scope", "clicks")
	ps := in.through(500)
	_, before := shared.oidc.counts(client)
	begin := time.Now()
	sent := 500
	for time.Since(begin) < 12*time.Second { // longer than any token
		in.generate(100)
		sent += 100
	}
	in.settled(sent)
	issued, refused := shared.oidc.counts(client)
	require.Equal(t, before, refused)
	t.Log("tokens issued:", issued)
	require.Zero(t, ps.total("can't be used")+ps.total("does not accept")+ps.total("gives us no token"))

	// Another secret: refused, said once, and accepted again once the file has it.
	ps.each((*process).mark)
	shared.oidc.set(client, password("two"), 10*time.Second)
	ps.each(func(p *process) { p.says("gives us no token: 401 Unauthorized invalid_client wrong client secret") })
	in.refused("gives us no token: 401 Unauthorized", "setup")
	in.refused("gives us no token: 401 Unauthorized", "generate", "--count", "1")
	in.rewrite("kafka.sasl.client_secret_file", password("two"))
	in.generate(100)
	in.settled(sent + 100)
	ps.each(func(p *process) {
		require.LessOrEqual(t, p.count("gives us no token"), 8, "not once an attempt:\n%s", p.out.Tail())
	})
	ps.stop()

	in.with("kafka.sasl.token_ca", testca.New(t).File).refused("is signed by nobody trusted here", "setup")
	in.with("kafka.sasl.token_url", strings.Replace(shared.oidc.tokenURL(), "https:", "http:", 1)).refused("gives us no token", "setup")
}

// What is refused is said with who refuses, where, and the setting to look at; the exit is 1, soon.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	w.user("refused")
	ok := w.as("refused")
	other := testca.New(t)
	for name, c := range map[string]struct {
		w    *world
		says string
	}{
		"wrong password":       {w.at(scram).sasl("refused", password("nobody")), "does not accept the user or password"},
		"no such user":         {w.at(scram).sasl("nobody", password("nobody")), "does not accept the user or password"},
		"another mechanism":    {ok.with("kafka.sasl.mechanism", "PLAIN"), "does not offer the SASL mechanism PLAIN"},
		"untrusted":            {ok.with("kafka.tls.ca", other.File), "is signed by nobody trusted here"},
		"untrusted, system":    {ok.with("kafka.tls.ca", ""), "is signed by nobody trusted here"},
		"expired":              {w.at(expired).sasl("refused", password("refused")), "has expired"},
		"wrong host":           {w.at(wrongHost).sasl("refused", password("refused")), "is for another host"},
		"no TLS where it is":   {ok.with("kafka.tls.enabled", "false", "kafka.tls.ca", ""), "speaks TLS, and we don't"},
		"nothing where it is":  {w.with("kafka.brokers", shared.stack.Cluster().Addrs(scram)), "speaks TLS, and we don't"},
		"TLS where it is not":  {ok.with("kafka.brokers", shared.stack.Cluster().Addrs(noTLS)), "most likely it does not speak TLS there"},
		"no SASL where it is":  {w.with("kafka.brokers", shared.stack.Cluster().Addrs(noTLS)), "most likely it wants to know who we are (SASL)"},
		"SASL where it is not": {w.sasl("refused", password("refused")), "does not ask who we are on that port"},
	} {
		t.Run(name, func(t *testing.T) {
			c.w.t = t
			for _, args := range [][]string{{"setup"}, {"generate", "--count", "1"}} {
				out := c.w.refused(c.says, args...)
				require.Equal(t, 1, strings.Count("\n"+out, "\nexactly: "), "one line says it:\n%s", out)
			}
		})
	}
}

// A worker that is refused says so once and tries on; corrected, it works. A password that changes under it is the same.
func TestWorkerGetsOverIt(t *testing.T) {
	w := newWorld(t)
	user := "rotated-" + w.config().Group
	w.user(user)
	w.permit("User:"+user, -1, acl.Roles...)
	w.exactly("setup")
	w.generate(100)
	in := w.as(user)
	in.rewrite("kafka.sasl.password_file", password("nobody"))
	ps := in.workers()
	ps.each(func(p *process) { p.says("kafka can't be used: trying on until somebody mends it") })
	in.rewrite("kafka.sasl.password_file", password(user))
	ps.each(func(p *process) {
		p.says("rebalance: assigned")
		require.Equal(t, 1, p.count("does not accept"), "%s", p.out.Tail())
	})
	w.settled(100)

	// The broker is told first. Each client has to show the password again soon, and is refused.
	ps.each((*process).mark)
	res, err := shared.adm.Kadm().AlterUserSCRAMs(w.ctx, nil, []kadm.UpsertSCRAM{{User: user, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: password("new")}})
	require.NoError(t, err)
	require.NoError(t, res.Error())
	ps.each(func(p *process) { p.says("does not accept the user or password") })
	w.generate(100)
	in.rewrite("kafka.sasl.password_file", password("new"))
	w.settled(200)
	ps.each(func(p *process) {
		n := p.count("does not accept")
		require.LessOrEqual(t, n, 8, "not once an attempt:\n%s", p.out.Tail())
	})
	ps.stop()
}

// The generator, too, takes a changed password.
func TestGeneratorFollowsPassword(t *testing.T) {
	w := newWorld(t)
	user := "generating-" + w.config().Group
	w.user(user)
	w.permit("User:"+user, -1, acl.Generate)
	w.exactly("setup")
	in := w.as(user)
	p := in.start("generate", "--rate", "50")
	p.says("clicks/s")
	res, err := shared.adm.Kadm().AlterUserSCRAMs(w.ctx, nil, []kadm.UpsertSCRAM{{User: user, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: password("new")}})
	require.NoError(t, err)
	require.NoError(t, res.Error())
	p.says("does not accept the user or password")
	p.says("Kafka is away")
	in.rewrite("kafka.sasl.password_file", password("new"))
	p.says("Kafka acknowledges again")
	p.stop()
}

// Whatever is asked for, the settings are printed without secrets, and so are librdkafka's own words about them. See leaked.
func TestNothingSecretIsPrinted(t *testing.T) {
	w := newWorld(t)
	user := "loud-" + w.config().Group
	w.user(user)
	w.permit("User:"+user, -1, acl.Roles...)
	loud := w.at(scram).with("kafka.sasl.mechanism", "SCRAM-SHA-512", "kafka.sasl.username", user, "kafka.sasl.password", password(user), "kafka.debug", "all", "log.level", "debug",
		"registry.username", "u", "registry.password", password("registry"))
	loud.through(50).stop()
	loud.exactly("config", "print", "--json")
	loud.with("kafka.sasl.password_file", w.file("both", "x")).try("config", "print")
	loud.with("kafka.sasl.mechanism", "").try("config", "print")
	out := loud.exactly("config", "print")
	require.Regexp(t, `(?m)^kafka\.sasl\.password +EXACTLY_KAFKA_SASL_PASSWORD +xxxxx$`, out)
	require.Regexp(t, `(?m)^kafka\.sasl\.client_secret +EXACTLY_KAFKA_SASL_CLIENT_SECRET +$`, out)
}
