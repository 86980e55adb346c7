package apache

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func options(t *testing.T, o Options) *Options {
	t.Helper()
	o.Ports = &Ports{}
	require.NoError(t, o.validate())
	require.NoError(t, o.choosePorts())
	return &o
}

func TestProperties(t *testing.T) {
	one := options(t, Options{}).properties(0, "/d")
	require.Equal(t, "1", one["default.replication.factor"])
	require.Equal(t, "1", one["min.insync.replicas"])
	require.Equal(t, "1", one["transaction.state.log.min.isr"])
	require.Equal(t, "broker,controller", one["process.roles"])
	require.NotContains(t, one, "broker.session.timeout.ms")

	o := options(t, Options{
		Brokers: 3, Properties: map[string]string{"num.io.threads": "2", "min.insync.replicas": "1"},
		PerBroker: func(broker int) map[string]string {
			return map[string]string{"broker.rack": string(rune('a' + broker)), "num.io.threads": "3"}
		},
		Listeners: []Listener{{Name: "SASL", Protocol: "SASL_SSL", Host: "localhost", Properties: map[string]string{"ssl.keystore.type": "PEM"}}},
	})
	p := o.properties(2, "/d")
	ports := (*o.Ports)[2]
	require.Equal(t, "3", p["offsets.topic.replication.factor"])
	require.Equal(t, "2", p["transaction.state.log.min.isr"])
	require.Equal(t, "1", p["min.insync.replicas"], "what is asked for wins")
	require.Equal(t, "3", p["num.io.threads"], "what is asked for of one broker wins over that")
	require.Equal(t, "c", p["broker.rack"])
	require.Equal(t, "PEM", p["listener.name.sasl.ssl.keystore.type"])
	require.Equal(t, "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL", p["listener.security.protocol.map"])
	b := newBroker(o, nil, 2, nil)
	require.Equal(t, "PLAINTEXT://"+b.Addr(Plaintext)+",SASL://"+b.Addr("SASL"), p["advertised.listeners"])
	require.Regexp(t, `^localhost:\d+$`, b.Addr("SASL"))
	require.Regexp(t, `^PLAINTEXT://127.0.0.1:\d+,CONTROLLER://127.0.0.1:\d+,SASL://127.0.0.1:\d+$`, p["listeners"])
	require.Regexp(t, `^0@127.0.0.1:\d+,1@127.0.0.1:\d+,2@127.0.0.1:\d+$`, p["controller.quorum.voters"])
	require.Len(t, ports, 3)
}

func TestPortsAreKept(t *testing.T) {
	o := options(t, Options{Brokers: 3})
	before := append(Ports{}, *o.Ports...)
	seen := map[int]bool{}
	for _, ports := range before {
		for _, p := range ports {
			require.False(t, seen[p], "port %d twice", p)
			seen[p] = true
		}
	}
	o.Listeners = []Listener{{Name: "TLS", Protocol: "SSL"}} // another one than last time
	require.NoError(t, o.choosePorts())
	for i, ports := range before {
		for name, p := range ports {
			require.Equal(t, p, (*o.Ports)[i][name])
		}
		require.NotZero(t, (*o.Ports)[i]["TLS"])
	}
}

func TestOptionsRefused(t *testing.T) {
	for says, o := range map[string]Options{
		"must be 1 to 9": {Brokers: 10}, "must be capitals": {Listeners: []Listener{{Name: "tls", Protocol: "SSL"}}},
		"and not PLAINTEXT or CONTROLLER":  {Listeners: []Listener{{Name: "CONTROLLER", Protocol: "SSL"}}},
		"given twice":                      {Listeners: []Listener{{Name: "A", Protocol: "SSL"}, {Name: "A", Protocol: "SSL"}}},
		`protocol "TLS" must be PLAINTEXT`: {Listeners: []Listener{{Name: "A", Protocol: "TLS"}}},
	} {
		require.ErrorContains(t, o.validate(), says)
	}
}

func TestRender(t *testing.T) {
	s, err := render(map[string]string{"b": `C:\x`, "a": "one\ntwo", "c": "org.apache.X required username=\"u\";"})
	require.NoError(t, err)
	require.Equal(t, "a=one\\ntwo\nb=C:\\\\x\nc=org.apache.X required username=\"u\";\n", s)
	_, err = render(map[string]string{"a=b": ""})
	require.Error(t, err)
}
