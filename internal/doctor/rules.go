package doctor

import "slices"

// rule is one thing that a deployment has to be.
type rule struct {
	name     string   // kebab-case; people silence and search by it: never reused for something else
	severity Severity // the worst it finds
	needs    []Part   // what it can't be checked without
	why      string   // why it matters
	check    func(*probe)
}

// rules are all of them, in the order they are reported in. doc/operations.md has a line for each.
var rules = slices.Concat(programRules, kafkaRules, topicRules, registryRules, postgresRules, tableRules)

// Rule is a rule's name and severity, for documents.
type Rule struct {
	Name     string
	Severity Severity
}

// Rules lists every rule.
func Rules() []Rule {
	out := make([]Rule, len(rules))
	for i := range rules {
		out[i] = Rule{rules[i].name, rules[i].severity}
	}
	return out
}
