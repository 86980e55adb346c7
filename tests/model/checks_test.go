// Package model holds the protocol's models, in Promela, and the checks on them: every state within a model's bounds is tried, once with all
// guards standing, which must hold, and once more with each guard taken out, which must be caught, and by the property it is there for.
//
// `make model` runs them (spin and a C compiler are needed); the tests without the build tag model only hold this folder together: each
// label and each switch of a model is in the table below, and the parser reads pan's reports.
package model

// property is what a search looks for.
type property string

const (
	// An assertion, in a state that can be reached. The one that failed is named.
	safety property = "safety"
	// A state in which nothing can happen any more and not everything is finished.
	stuck property = "stuck"
	// A run without end in which every process that can always go on does so now and then (weak fairness). Faults are bounded and so is the work,
	// so there must be none.
	livelock property = "livelock"
)

// model is one file, and the bounds within which it is searched whole.
type model struct {
	name     string
	file     string   // without .pml
	bounds   string   // in words, for the table; the numbers are the file's defaults, or those of defs
	defs     []string // -D for spin
	livelock []string // -D for the search for livelocks, whose state space is larger
}

var models = []model{
	{
		name: "base", file: "base", bounds: "1 partition, 2 records, 2 workers, 2 faults; livelock: 1 record, 1 fault",
		defs: []string{"FAULTS=2"}, livelock: []string{"FAULTS=1", "N=1"},
	},
	{
		name: "two", file: "two", bounds: "2 partitions of 2 records, 2 workers, 2 faults; livelock: 1 record, 1 fault",
		defs: []string{"FAULTS=2"}, livelock: []string{"FAULTS=1", "N=1"},
	},
	{
		name: "takeover", file: "takeover", bounds: "1 record, 3 workers, 3 faults (evictions count 2); livelock: 1 fault",
		defs: []string{"FAULTS=3"}, livelock: []string{"FAULTS=1"},
	},
	{
		name: "turns, one id", file: "turns", bounds: "2 processes under one worker id, Postgres away once",
		defs: []string{}, livelock: []string{},
	},
	{
		name: "turns, two ids", file: "turns", bounds: "2 workers, pending offsets group-wide",
		defs: []string{"TWO_IDS"}, livelock: []string{"TWO_IDS"},
	},
	{
		name: "unknown", file: "unknown", bounds: "3 records, 2 workers, 4 faults; livelock: 2 faults",
		defs: []string{"FAULTS=4"}, livelock: []string{"FAULTS=2"},
	},
	{
		name: "past", file: "past", bounds: "2 records, 2 workers, 2 faults, 5 claims; livelock: 3 claims",
		defs: []string{"FAULTS=2"}, livelock: []string{"FAULTS=2", "CLAIMS=3"},
	},
}

// mutant is a model with a guard taken out.
type mutant struct {
	model string
	out   string   // the switch: -D out
	more  []string // -D besides, instead of the model's own
	by    property
	what  string // safety: the assertion that must fail; ROWS_ONLY leaves out those that would fail earlier: a capture by a former owner, and what it leads to
}

var mutants = []mutant{
	{"base", "NO_GUARD_1", []string{"FAULTS=2", "ROWS_ONLY"}, safety, "duplicate_row"},
	{"base", "NO_GUARD_1_EPOCH", nil, safety, "captured_by_former_owner"},
	{"base", "NO_GUARD_2", nil, safety, "duplicate_event"},
	{"base", "NO_GUARD_3", nil, safety, "duplicate_event"},
	{"base", "NO_GUARD_4", nil, safety, "duplicate_event"},
	{"base", "NO_GUARD_5", nil, safety, "other_bytes"},
	{"base", "NO_GUARD_6", nil, safety, "kafka_ahead"},
	{"base", "NO_GUARD_7", nil, safety, "lost_event"},
	{"base", "NO_GUARD_9", nil, safety, "kafka_ahead"},
	{"base", "NO_GUARD_9_LOCK", nil, safety, "captured_by_former_owner"},
	{"base", "NO_LIVES", nil, safety, "duplicate_event"},
	{"base", "NO_DOUBT", nil, safety, "stopped_without_cause"},
	{"base", "NO_RECLAIM", nil, stuck, ""},

	{"two", "NO_GUARD_1", []string{"FAULTS=2", "ROWS_ONLY"}, safety, "duplicate_row"},
	{"two", "NO_GUARD_2", nil, safety, "duplicate_event"},
	{"two", "NO_GUARD_2_QUEUE", nil, safety, "duplicate_event"},
	{"two", "NO_GUARD_3", nil, safety, "duplicate_event"},
	{"two", "NO_GUARD_7", nil, safety, "lost_event"},

	{"takeover", "NO_CLAIMANTS", nil, stuck, ""},
	{"takeover", "NO_PREDECESSOR", nil, stuck, ""},
	{"takeover", "NO_FENCE", nil, stuck, ""},

	{"turns, one id", "NO_INCARNATION", nil, livelock, ""},
	{"turns, two ids", "NO_MEMBERS", nil, livelock, ""},

	{"unknown", "NO_GUARD_8", []string{"FAULTS=3"}, safety, "torn_transaction"},
	{"unknown", "NO_GUARD_8_LOOK", []string{"FAULTS=3"}, safety, "duplicate_event"},
	{"unknown", "NO_GUARD_8_REPEATED", []string{"FAULTS=3"}, safety, "torn_transaction"},

	{"past", "NO_GUARD_10_AHEAD", nil, safety, "captured_again"},
	{"past", "NO_GUARD_10_OURS", nil, safety, "duplicate_event"},
	{"past", "NO_GUARD_10_FLOOR", nil, safety, "duplicate_event"},
	{"past", "NO_GUARD_11", nil, safety, "captured_by_former_owner"},
	{"past", "NO_COVERAGE", []string{"FAULTS=2", "NO_GUARD_11", "ROWS_ONLY"}, safety, "lost_event"},
}

// holes are what is known to be open: not a guard taken out, but something outside that no guard of ours closes. They must still be found, or
// doc/protocol.md says too little.
var holes = []mutant{
	{"past", "HOLE_FORMER_OWNER", nil, safety, "captured_again"},
}
