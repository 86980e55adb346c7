# Everything there is to do with this tree. `make` alone lists it.
SHELL := /bin/sh
.DEFAULT_GOAL := help

# The Kafka client is C (librdkafka, linked in), so cgo is needed everywhere.
export CGO_ENABLED = 1

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X main.version=$(VERSION)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
IMAGE   ?= exactly:dev

# Pinned: a linter that changes by itself breaks a tree that did not.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

TEST_TIMEOUT := 30m
TEST_FLAGS   := -p 2 -timeout $(TEST_TIMEOUT)
PACKAGES     := ./...

# `make lint` has vetted it; what only a debugger reads is not linked.
E2E_FLAGS := -count=1 -vet=off -p 3 -parallel 4 -ldflags '-s -w' -timeout $(TEST_TIMEOUT)

# What runs on the stack that TEST_STACK asks for.
STACK_PACKAGES := ./tests/behaviour ./tests/conformance ./internal/offsets ./internal/provision ./internal/admin ./internal/transactions ./internal/doctor ./audit

# Of ./tests/behaviour: what is in `make proof`, so that `make e2e` stays a quarter of an hour.
PROOF := ^Test(AuditBesideKills|Tampering|Replay.*|MutatedRecords|EveryClassBesideKills|TooManyDeadLetters|SchemaVersionsInterleaved|RegistryAway|JSONClicks|LargeValues|Burst|Quarantine|KilledIsNotQuarantined|CountedBesideKills|CountsSwitchedOffAndOn)$$

# Of ./internal/provision: what concerns Postgres alone, and a real one has run it in `make test`.
POSTGRES_ALONE := ^Test(Rights|EveryTableIsGranted|GrantMends|DaysAhead|EndingFrozenSessions|SetupsAtOnce|SetupWithoutTheRightToMakeRoles|SetupWithCreateRole|ToDo)$$

# Of the simulation: how many seeds, or one of them with its trace; within how many each guard taken out has to be found.
SEEDS  := 10000
SEED   :=
WITHIN := 20000


# The console in Debian's Chromium: apt-get install chromium.
BROWSER := go test ./tests/browser -tags browser -count=1 -timeout 20m

.PHONY: help build demo test race e2e browser screenshots proof conformance model rules lint sim guards chaos soak fuzz bench bench-latency bench-audit image clean need

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: need ## build bin/exactly
	go build -ldflags '$(LDFLAGS)' -o bin/exactly ./cmd/exactly

demo: need ## the whole story on a stack of its own: two workers, one killed, the audit's verdict
	go build -tags failpoints -ldflags '$(LDFLAGS)' -o bin/exactly-demo ./cmd/exactly
	bin/exactly-demo demo

test: need ## all tests, and how many ran on which stack
	go run ./internal/testcount $(TEST_FLAGS) $(PACKAGES)

race: need ## the same under the race detector
	go run ./internal/testcount -race $(TEST_FLAGS) $(PACKAGES)

e2e: need ## the same behaviour on Apache Kafka, with one broker and with three, brokers killed, and secured connections (Java 17, Maven)
	@sh scripts/need.sh java mvn
	TEST_STACK=kafka go run ./internal/testcount -share $(E2E_FLAGS) -skip '$(PROOF)|$(POSTGRES_ALONE)' $(STACK_PACKAGES)
	TEST_STACK=kafka3 go run ./internal/testcount $(E2E_FLAGS) -tags e2e -skip '$(PROOF)' ./tests/behaviour ./tests/secure ./tests/e2e ./internal/chaos/rig

proof: need ## on Apache Kafka as well: audits beside kills, tampering, heals, pruning, replays, input that can't be trusted (Java 17, Maven)
	@sh scripts/need.sh java mvn
	TEST_STACK=kafka go run ./internal/testcount $(E2E_FLAGS) -tags e2e -run '$(PROOF)' ./tests/behaviour
	TEST_STACK=kafka go run ./internal/testcount $(E2E_FLAGS) -tags e2e ./internal/retention ./tests/heal
	TEST_STACK=kafka3 go run ./internal/testcount $(E2E_FLAGS) ./tests/conformance

browser: need ## the console in a real browser: each view, a kill watched live, a replay by clicking, axe-core (Chromium)
	@sh scripts/need.sh chromium
	$(BROWSER)

screenshots: need ## what each view of the console looks like, into doc/images (Chromium)
	@sh scripts/need.sh chromium
	mkdir -p doc/images
	$(BROWSER) -run '^TestImages$$' -args -images=$(abspath doc/images)

conformance: need ## the rules a broker and a registry are held to, one by one (TEST_STACK=embedded, kafka or kafka3)
	go test -count=1 -v ./tests/conformance

model: need ## the models of the protocol, every state of them, and each guard taken out (Spin)
	@sh scripts/need.sh spin
	go test -count=1 -v -tags model -timeout $(TEST_TIMEOUT) ./tests/model

rules: ## the recording rules and alerts on made-up series: each alert fires, and each is quiet (promtool)
	@sh scripts/need.sh promtool
	promtool check rules configs/prometheus/recording.yml configs/prometheus/alerts.yml
	promtool test rules configs/prometheus/tests.yml

lint: need ## gofmt, vet, staticcheck and the house rules
	@files=$$(gofmt -l .) || exit 1; if [ -n "$$files" ]; then echo "not gofmt'ed:"; echo "$$files"; exit 1; fi
	go vet ./...
	go vet -tags failpoints,e2e,model,browser ./...
	go run $(STATICCHECK) ./...
	go run $(STATICCHECK) -tags failpoints,e2e,model,browser ./...
	go vet -tags mutants ./engine ./txn ./internal/guard ./tests/sim
	go run $(STATICCHECK) -tags mutants ./engine ./txn ./internal/guard ./tests/sim
	go test ./tests/house

# SEED=N repeats a schedule, FULL=1 makes it more than twice as much. The report is left in $(CHAOS_DIR).
CHAOS_DIR ?= bin/chaos

chaos: need ## everything killed, stopped, cut and filled on Apache Kafka and Postgres, and the audit's verdict (FULL=1: more of it)
	@sh scripts/need.sh java mvn
	go test ./tests/chaos -tags e2e -run '^TestChaos$$' -count=1 -timeout 60m -v -args -seed=$(or $(SEED),0) -full=$(if $(FULL),true,false) -report=$(abspath $(CHAOS_DIR))

soak: need ## the same for hours, until 1,000 workers were killed and 10 million clicks processed; goes on in bin/soak where it was
	@sh scripts/need.sh java mvn
	go test ./tests/chaos -tags e2e -run '^TestSoak$$' -count=1 -timeout 24h -v -args -seed=$(or $(SEED),0) -state=$(abspath bin/soak)

sim: need ## the simulation: SEEDS=100000 of them, or SEED=7 with its trace
	GOGC=400 go test ./tests/sim -count=1 -run '^TestSeeds$$' -timeout $(TEST_TIMEOUT) -v -args $(if $(SEED),-seed $(SEED),-seeds $(SEEDS))

guards: need ## the simulation with each guard taken out in turn, and what breaks without it
	GOGC=400 go test -tags mutants ./tests/sim -count=1 -run '^TestGuards$$' -timeout $(TEST_TIMEOUT) -v -args -within $(WITHIN)

# What it finds is left in schema/testdata/fuzz, to be committed with the fix, as a line of schema/testdata/corpus; what else it has learnt stays in Go's own cache.
FUZZTIME ?= 1m

fuzz: need ## decode and validate any bytes at all, FUZZTIME (1m) for each of the fuzz targets
	@for f in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\)(.*/\1/p' schema/*_test.go); do \
	echo "$$f"; go test ./schema -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -timeout 0 || exit 1; done

# One after the other on one stack: what bare clients and a bare COPY do, PEER=1 Kafka Streams with a JDBC sink, workers. ONLY=worker/client=franz/workers=1 takes one of them. What it
# prints is for benchstat.
CLICKS ?= 1000000
ONLY   ?= .

bench: need ## clicks a second, CPU, memory and bytes of CLICKS=1000000 clicks on Apache Kafka and Postgres (PEER=1: and of Kafka Streams; PROFILE=dir)
	@sh scripts/need.sh java mvn
	go test ./tests/bench -run '^$$' -bench 'BothSinks/$(ONLY)' -benchtime 1x -timeout 2h -args -clicks=$(CLICKS) $(if $(PEER),-peer) $(if $(AUDIT),-audit) $(if $(PROFILE),-profile=$(abspath $(PROFILE)))

bench-latency: need ## from a click's due time to both sinks, at 100, 1,000, 10,000 and 50,000 clicks a second: p50, p99, p99.9
	@sh scripts/need.sh java mvn
	go test ./tests/bench -run '^$$' -bench 'Latency' -benchtime 1x -timeout 1h

# The auditing process alone is measured; the state it audits is made before, which takes longer. It fails above 300 MiB.

bench-audit: ## the audit of CLICKS=1000000 clicks on Apache Kafka: its rate, CPU and memory (TEST_STACK=embedded: without Java)
	@if [ "$(TEST_STACK)" != embedded ]; then sh scripts/need.sh java mvn; fi
	TEST_STACK=$(or $(TEST_STACK),kafka) go test ./audit -count=1 -run '^$$' -bench '^BenchmarkRun$$' -benchtime 1x -timeout 4h -v -args -audit.records=$(CLICKS)

# Docker's older builder does not know RUN --mount; Podman's own image format has no health check.
image: ## build the container image IMAGE (default exactly:dev), with Docker or Podman
	@sh scripts/need.sh engine
	@if command -v docker >/dev/null; then export DOCKER_BUILDKIT=1; set -- docker build; else set -- podman build --format docker; fi; \
	set -x; "$$@" --tag $(IMAGE) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) .

clean: ## remove what was built
	rm -rf bin

need:
	@sh scripts/need.sh go cc
