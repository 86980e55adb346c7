package apache

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/stack/child"
)

// Options are what a cluster can be told. Broker i is the one with node.id i, from 0.
type Options struct {
	Brokers    int                                // how many; 0: 1. Each is a controller as well
	Properties map[string]string                  // server properties of every broker; they win over those of this package
	PerBroker  func(broker int) map[string]string // further ones of one broker; they win over Properties
	Listeners  []Listener                         // beside the plaintext one
	JVM        []string                           // further arguments of every broker's JVM: -Djava.security.auth.login.config=…
	Env        []string                           // further NAME=value of every broker's environment
	Format     []string                           // further arguments of `kafka-storage format`, which only a first start runs: --add-scram …
	Archive    string                             // JVM argument that has a broker's JVM write an archive of its classes when it ends, which takes it a while; jvm.Programs.Archive

	Revive bool // start a broker that ends by itself again, where there are several, instead of reporting a failure

	Dir       string      // where everything is kept, below broker-N; there already
	ClusterID string      // 16 bytes in unpadded URL-safe base 64
	Ports     *Ports      // those of the last start, kept where still free; changed to the present ones
	Log       *zap.Logger // nil: silent
}

// Listener is a further listener of every broker. The plaintext one stays: clients of the stack's own and the brokers among themselves use it.
type Listener struct {
	Name       string            // in capitals, such as SASL_SSL
	Protocol   string            // PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL
	Host       string            // as it is told to clients; empty: 127.0.0.1. It must resolve to that: localhost, say
	Advertise  []int             // ports told to clients instead, by broker: those of proxies in front; empty: the brokers' own
	Properties map[string]string // without their prefix listener.name.NAME. : ssl.keystore.location, sasl.enabled.mechanisms, …
}

// Ports are what the brokers listen on, by broker and name of the listener.
type Ports []map[string]int

// The listeners that are always there.
const (
	Plaintext  = "PLAINTEXT"
	controller = "CONTROLLER"
)

var listenerName = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

func (o *Options) validate() error {
	if o.Brokers == 0 {
		o.Brokers = 1
	}
	if o.Brokers < 1 || o.Brokers > 9 {
		return fmt.Errorf("%d brokers: it must be 1 to 9", o.Brokers)
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	for i, l := range o.Listeners {
		if !listenerName.MatchString(l.Name) || l.Name == Plaintext || l.Name == controller {
			return fmt.Errorf("listener %q: it must be capitals, and not %s or %s", l.Name, Plaintext, controller)
		}
		if slices.ContainsFunc(o.Listeners[:i], func(b Listener) bool { return b.Name == l.Name }) {
			return fmt.Errorf("listener %s: given twice", l.Name)
		}
		if !slices.Contains([]string{Plaintext, "SSL", "SASL_PLAINTEXT", "SASL_SSL"}, l.Protocol) {
			return fmt.Errorf("listener %s: protocol %q must be PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL", l.Name, l.Protocol)
		}
	}
	return nil
}

// names are all listeners' names.
func (o *Options) names() []string {
	names := []string{Plaintext, controller}
	for _, l := range o.Listeners {
		names = append(names, l.Name)
	}
	return names
}

// choosePorts gives every listener of every broker a port, the one of last time if it is still free.
func (o *Options) choosePorts() error {
	ports := make(Ports, o.Brokers)
	for i := range ports {
		ports[i] = map[string]int{}
		for _, name := range o.names() {
			want := 0
			if i < len(*o.Ports) {
				want = (*o.Ports)[i][name]
			}
			var err error
			if ports[i][name], err = child.FreePort(want); err != nil {
				return err
			}
		}
	}
	*o.Ports = ports
	return nil
}

// properties are the server.properties of a broker.
func (o *Options) properties(broker int, data string) map[string]string {
	ports := (*o.Ports)[broker]
	var listeners, advertised, protocols, voters []string
	add := func(name, host, protocol string, advertise ...int) {
		listeners = append(listeners, name+"://"+child.Loopback(ports[name]))
		protocols = append(protocols, name+":"+protocol)
		if name != controller {
			port := ports[name]
			if broker < len(advertise) {
				port = advertise[broker]
			}
			advertised = append(advertised, fmt.Sprintf("%s://%s:%d", name, host, port))
		}
	}
	add(Plaintext, "127.0.0.1", Plaintext)
	add(controller, "", Plaintext)
	p := map[string]string{}
	for _, l := range o.Listeners {
		host := l.Host
		if host == "" {
			host = "127.0.0.1"
		}
		add(l.Name, host, l.Protocol, l.Advertise...)
		for k, v := range l.Properties {
			p["listener.name."+strings.ToLower(l.Name)+"."+k] = v
		}
	}
	for i, p := range *o.Ports {
		voters = append(voters, strconv.Itoa(i)+"@"+child.Loopback(p[controller]))
	}
	replicas := min(3, o.Brokers)
	inSync := min(2, replicas)
	maps.Copy(p, map[string]string{
		"node.id":                        strconv.Itoa(broker),
		"process.roles":                  "broker,controller",
		"controller.quorum.voters":       strings.Join(voters, ","),
		"controller.listener.names":      controller,
		"listeners":                      strings.Join(listeners, ","),
		"advertised.listeners":           strings.Join(advertised, ","),
		"listener.security.protocol.map": strings.Join(protocols, ","),
		"inter.broker.listener.name":     Plaintext,
		"log.dirs":                       data,
		"auto.create.topics.enable":      "false",

		"default.replication.factor":                       strconv.Itoa(replicas),
		"min.insync.replicas":                              strconv.Itoa(inSync),
		"offsets.topic.replication.factor":                 strconv.Itoa(replicas),
		"transaction.state.log.replication.factor":         strconv.Itoa(replicas),
		"transaction.state.log.min.isr":                    strconv.Itoa(inSync),
		"share.coordinator.state.topic.replication.factor": strconv.Itoa(replicas),
		"share.coordinator.state.topic.min.isr":            strconv.Itoa(inSync),
		// 50 each by default: every one of them is opened, loaded and replicated at every start.
		"offsets.topic.num.partitions":         "6",
		"transaction.state.log.num.partitions": "6",

		// Eight and three by default, each of which wakes up several times a second for nothing.
		"num.io.threads":      "2",
		"num.network.threads": "1",

		"group.min.session.timeout.ms":     "1000",
		"group.initial.rebalance.delay.ms": "0",
		// A transaction that has timed out is aborted within this (default 10 s), beside its own timeout.
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
		// A small heap: the cleaner's buffer alone would be 128 MiB of it.
		"log.cleaner.dedupe.buffer.size": "4194304",
		"log.index.size.max.bytes":       "1048576",
	})
	if o.Brokers > 1 { // a broker that is gone is noticed after this (default 9 s); alone, there would be nobody to take over
		p["broker.session.timeout.ms"], p["broker.heartbeat.interval.ms"] = "4000", "500"
	}
	maps.Copy(p, o.Properties)
	if o.PerBroker != nil {
		maps.Copy(p, o.PerBroker(broker))
	}
	return p
}

// render is a properties file. A backslash and a line's end would mean something else to Java.
func render(p map[string]string) (string, error) {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		if strings.ContainsAny(k, "\r\n:= \\") || k == "" {
			return "", errors.New("server property " + strconv.Quote(k) + ": no name of one")
		}
		v := strings.ReplaceAll(p[k], `\`, `\\`)
		v = strings.ReplaceAll(v, "\n", `\n`)
		b.WriteString(k + "=" + v + "\n")
	}
	return b.String(), nil
}
