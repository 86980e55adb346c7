// Package acl owns which rights each command needs of Kafka: the least access control lists, as kafka-acls.sh writes them, and what is
// said when one is missing.
//
// It promises that with the rights it lists a command does all it can do, and that without any one of them something fails. It never
// changes an access control list.
package acl

import (
	"fmt"
	"strings"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// Role is what a principal is for.
type Role string

// The roles.
const (
	Worker   Role = "worker" // exactly run, and exactly offsets
	Setup    Role = "setup"
	Generate Role = "generate"
	Audit    Role = "audit"
	Replay   Role = "replay"   // exactly dlq replay
	Pointers Role = "pointers" // a worker's more, for what dlq replay asks of it
)

// Roles are all of them.
var Roles = []Role{Setup, Worker, Pointers, Generate, Audit, Replay}

// Operation is Kafka's own name of one. Read, Write, Delete and Alter each imply Describe.
type Operation string

// The operations.
const (
	Read     Operation = "Read"
	Write    Operation = "Write"
	Create   Operation = "Create"
	Describe Operation = "Describe"

	DescribeConfigs Operation = "DescribeConfigs"
)

// Type is the kind of resource.
type Type string

// The kinds of resources.
const (
	Topic           Type = "topic"
	Group           Type = "group"
	TransactionalID Type = "transactional-id"
)

// Rule allows one operation on one resource, or on all whose names begin with Name.
type Rule struct {
	Role      Role      `json:"role"`
	Operation Operation `json:"operation"`
	Type      Type      `json:"resource_type"`
	Name      string    `json:"resource"`
	Prefixed  bool      `json:"prefixed"`
	Why       string    `json:"why"`
}

// Rules are the least a role needs.
func Rules(c *config.Config, r Role) []Rule {
	in, out, dlq, heads := c.Topics.Input, c.Topics.Output, c.Topics.DLQ, c.Ledger.HeadsTopic
	var rules []Rule
	add := func(o Operation, t Type, name, why string) {
		rules = append(rules, Rule{Role: r, Operation: o, Type: t, Name: name, Prefixed: t == TransactionalID, Why: why})
	}
	switch r {
	case Setup:
		for _, t := range setupTopics(c) {
			add(Create, Topic, t, "make it, where it does not exist")
			add(Describe, Topic, t, "its id, and whether it exists")
		}
	case Worker:
		add(Read, Topic, in, "consume")
		add(Read, Group, c.Group, "be a member, commit offsets")
		add(Write, Topic, out, "publish")
		add(Write, Topic, dlq, "publish dead letters")
		if heads != "" {
			add(Write, Topic, heads, "publish the heads of the ledger's chains")
		}
		add(Read, Topic, out, "find the last event of each partition where the group offset is gone")
		add(Read, Topic, dlq, "likewise, of dead letters")
		add(DescribeConfigs, Topic, out, "how large a message may be")
		add(DescribeConfigs, Topic, dlq, "likewise")
		add(Write, TransactionalID, c.TransactionalID(""), "publish in transactions; end those of a worker that died")
	case Generate:
		add(Write, Topic, in, "produce clicks")
	case Audit:
		for _, t := range c.AllTopics() {
			add(Read, Topic, t, "compare it")
		}
		add(Describe, Group, c.Group, "the group offsets")
	case Pointers, Replay:
		if c.Topics.Replay == "" {
			break
		}
		own := c.Replay()
		if r == Pointers {
			add(Read, Topic, own.Topics.Input, "consume pointers")
			add(Read, Group, own.Group, "be a member, commit offsets")
			break
		}
		add(Write, Topic, own.Topics.Input, "write pointers")
		add(Describe, Topic, out, "its id")
		add(Describe, Topic, dlq, "likewise")
		if heads != "" {
			add(Write, Topic, heads, "publish the heads of the ledger's chains")
		}
		add(Describe, Group, own.Group, "with --wait: how far workers are")
	}
	return rules
}

// setupTopics are those that setup makes.
func setupTopics(c *config.Config) []string {
	all := c.AllTopics()
	if c.Topics.Replay != "" && c.Topics.Replay != c.Topics.Input {
		all = append(all, c.Topics.Replay)
	}
	return all
}

// Command is the call of Kafka's tool that adds a rule. What is needed to reach the brokers as an administrator is the reader's to add.
func (r *Rule) Command(brokers, principal string) string {
	pattern := ""
	if r.Prefixed {
		pattern = " --resource-pattern-type prefixed"
	}
	return fmt.Sprintf("kafka-acls.sh --bootstrap-server %s --add --allow-principal %s --operation %s%s --%s %s",
		quote(brokers), quote(principal), r.Operation, pattern, r.Type, quote(r.Name))
}

func quote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:,-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (r *Rule) String() string {
	prefix := ""
	if r.Prefixed {
		prefix = "s that begin with"
	}
	return fmt.Sprintf("%s on %s%s %s", r.Operation, strings.ReplaceAll(string(r.Type), "-", " "), prefix, r.Name)
}
