//go:build e2e

package secure

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/stack/apache"
	"github.com/exactly-pipeline/exactly/internal/testca"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// The broker's listeners, besides the plaintext one that the tests administer it through.
const (
	scram     = "SCRAM"     // SASL_SSL
	noTLS     = "NOTLS"     // SASL_PLAINTEXT
	mutual    = "MUTUAL"    // SSL, client certificates required
	bearer    = "BEARER"    // SASL_SSL, OAUTHBEARER
	expired   = "EXPIRED"   // as SCRAM, with a certificate that has expired
	wrongHost = "WRONGHOST" // as SCRAM, with another host's certificate
)

// reauth is after how long a broker wants to see credentials again (KIP-368): so that changed ones matter to connections that stand.
const reauth = 4 * time.Second

// shared is what all tests of this package use: the program, a stack, the authority of its certificates, and who issues tokens.
var shared struct {
	bin   string
	stack *stack.Stack
	ca    *testca.CA
	oidc  *oidc
	adm   *admin.Admin // anonymous, who may do everything
	dir   string
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	defer func() { _ = os.RemoveAll(shared.dir) }()
	if err := start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shared.stack.Stop() //nolint:errcheck // its directory goes as well
	defer shared.adm.Close()
	defer shared.oidc.close()
	code := m.Run()
	if leaks := leaked(); len(leaks) > 0 {
		fmt.Fprintln(os.Stderr, "FAIL: secrets were printed by", leaks)
		code = 1
	}
	return code
}

func start() error {
	dir, err := os.MkdirTemp("", "exactly-secure-")
	if err != nil {
		return err
	}
	shared.dir = dir
	if shared.bin, err = teststack.Build(dir); err != nil {
		return err
	}
	if shared.ca, err = testca.In(filepath.Join(dir, "ca")); err != nil {
		return err
	}
	if shared.oidc, err = startOIDC(shared.ca); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	shared.stack, err = stack.Start(ctx, stack.Options{Dir: filepath.Join(dir, "stack"), Kind: stack.Kafka, NoSyncPostgres: true, Apache: broker()})
	if err != nil {
		return err
	}
	fmt.Println(teststack.Says + shared.stack.String())
	c, err := config.Load("", []string{"EXACTLY_KAFKA_BROKERS=" + shared.stack.Brokers()}, nil)
	if err != nil {
		return err
	}
	shared.adm, err = admin.New(&c, zap.NewNop())
	return err
}

// broker denies what is not allowed. Whoever is anonymous, on the plaintext listener, may do everything.
func broker() apache.Options {
	keys := func(p testca.Pair, more map[string]string) map[string]string {
		m := map[string]string{"ssl.keystore.type": "PEM", "ssl.keystore.location": p.Both, "ssl.truststore.type": "PEM", "ssl.truststore.location": shared.ca.File}
		maps.Copy(m, more)
		return m
	}
	const login = "org.apache.kafka.common.security."
	jaas := map[string]string{
		"sasl.enabled.mechanisms":        "SCRAM-SHA-512,SCRAM-SHA-256",
		"scram-sha-512.sasl.jaas.config": login + "scram.ScramLoginModule required;",
		"scram-sha-256.sasl.jaas.config": login + "scram.ScramLoginModule required;",
	}
	byToken := map[string]string{
		"sasl.enabled.mechanisms":                         "OAUTHBEARER",
		"oauthbearer.sasl.jaas.config":                    login + "oauthbearer.OAuthBearerLoginModule required;",
		"oauthbearer.sasl.server.callback.handler.class":  login + "oauthbearer.OAuthBearerValidatorCallbackHandler",
		"oauthbearer.connections.max.reauth.ms":           fmt.Sprint(reauth.Milliseconds()),
		"oauthbearer.sasl.oauthbearer.jwks.endpoint.url":  shared.oidc.jwksURL(),
		"oauthbearer.sasl.oauthbearer.expected.audience":  audience,
		"oauthbearer.sasl.oauthbearer.expected.issuer":    issuer,
		"oauthbearer.sasl.oauthbearer.scope.claim.name":   "scope",
		"oauthbearer.sasl.oauthbearer.sub.claim.name":     "sub",
		"oauthbearer.sasl.oauthbearer.clock.skew.seconds": "1",
	}
	scramReauth := maps.Clone(jaas)
	scramReauth["scram-sha-512.connections.max.reauth.ms"] = fmt.Sprint(reauth.Milliseconds())
	good := shared.ca.Server()
	var users []string
	for _, u := range []string{"setup", "worker", "generate", "audit", "replay"} {
		users = append(users, "--add-scram", fmt.Sprintf("SCRAM-SHA-512=[name=%s,password=%s]", u, password(u)))
	}
	return apache.Options{
		Properties: map[string]string{
			"authorizer.class.name":          "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			"super.users":                    "User:ANONYMOUS",
			"allow.everyone.if.no.acl.found": "false",
		},
		Listeners: []apache.Listener{
			{Name: scram, Protocol: "SASL_SSL", Host: "localhost", Properties: keys(good, scramReauth)},
			{Name: noTLS, Protocol: "SASL_PLAINTEXT", Properties: jaas},
			{Name: mutual, Protocol: "SSL", Properties: keys(good, map[string]string{"ssl.client.auth": "required"})},
			{Name: bearer, Protocol: "SASL_SSL", Properties: keys(good, byToken)},
			{Name: expired, Protocol: "SASL_SSL", Properties: keys(shared.ca.Expired(), jaas)},
			{Name: wrongHost, Protocol: "SASL_SSL", Properties: keys(shared.ca.WrongHost(), jaas)},
		},
		JVM:    []string{"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=" + shared.oidc.jwksURL()},
		Format: users,
	}
}
