# `make help` lists the targets. What takes more than a few lines is a script in .ci.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO ?= go

# The race detector needs a C compiler, and nothing else here does: without one the tests run
# without it, and say so. .ci/run installs one.
RACE ?= $(if $(shell command -v "$$($(GO) env CC)"),-race)

# Two packages at a time: each starts nodes, and more of them than cores makes timeouts mean
# nothing. -vet=off, because `make vet` does all of it. A package that hangs fails here, and one that
# is slow does not: internal/chaos takes 6 minutes, and more than 12 where a disk and cores are half as fast.
TESTFLAGS ?= -p 2 -timeout 16m -vet=off

# Packages in which nothing runs beside anything, neither in the code nor in the tests (internal/archtest sees to
# that): the race detector could find nothing there, and makes their tests take from 4 to 10 times the CPU.
SEQUENTIAL := ./internal/engine ./internal/engine/outbox ./internal/journal ./internal/schedule

# How long `make sim` runs: half of SIM_FOR for each load, and SIM_FEW for small clusters (0: five halves of
# SIM_FOR), since they find most; and after what it is hung (0: never). How long each target of `make fuzz` runs.
SIM_FOR ?= 10m
SIM_FEW ?= 0
SIM_TIMEOUT ?= 0
PLANTED_SHARE ?= 1
FUZZTIME ?= 30s
CHAOS_FOR ?= 10m

# `make suspend` and `make crash` link the tests so: see internal/stress.
MODULE := github.com/perdure/perdure
STRESS := -X $(MODULE)/internal/stress.tiny=1
SUSPEND_PACKAGES ?= ./...
SUSPEND_SKIP ?=
CRASH := -X $(MODULE)/internal/stress.crashing=1
CRASH_PACKAGES ?= ./cluster ./examples/...

# `make bench BENCHFLAGS=-quick`; see bench/README.md.
BENCHFLAGS ?=
# Packages and repetitions of `make microbench`; benchstat wants at least 6.
BENCH_PACKAGES ?= ./...
BENCH_COUNT ?= 6
BENCH_OUT ?= bench.txt

# buf is a module of its own. The first call builds it, which takes minutes, so that nothing
# in `make test` calls it; the generated code is committed.
BUF := $(GO) tool -modfile=tools/buf/go.mod buf

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: all
all: build test ## Build and test

.PHONY: build
build: ## Build everything; the programs go to bin/
	$(GO) build ./...
	$(GO) build -o bin/ ./cmd/...

.PHONY: test
test: ## All that continuous integration runs: format, vet, tests, suspensions, crashes, simulation, planted bugs, fuzzing, demo
	@GO='$(GO)' .ci/test

.PHONY: unit
unit: ## Only the Go tests, with the race detector if there is a C compiler
	@$(if $(RACE),,echo "no C compiler (CC is '$$($(GO) env CC)'): testing without the race detector")
	$(GO) test $(TESTFLAGS) $(SEQUENTIAL)
	$(GO) test $(RACE) $(TESTFLAGS) $$($(GO) list ./... | grep -vxF "$$($(GO) list $(SEQUENTIAL))")

.PHONY: race
race: ## The Go tests with the race detector, or an error
	$(GO) test -race $(TESTFLAGS) ./...

.PHONY: sim
sim: ## Simulate nodes and clusters under faults for SIM_FOR (10m; SIM_FOR=1h before a release), on new seeds, each twice, which must be the same
	$(GO) run ./internal/sim/replay -test.run '^(TestSeedRepeats|TestSeed|TestCrowd|TestCluster|TestFew)$$' -test.timeout $(SIM_TIMEOUT) -test.v -sim.for=$(SIM_FOR) -sim.few=$(SIM_FEW) -sim.twice

.PHONY: planted
planted: ## Build every planted bug, or with PLANTED_SHARE=n some of them, and see that the tests catch it
	$(GO) test ./internal/sim -run '^TestPlantedBugsAreNoticed$$' -count=1 -timeout 20m -v -args -sim.planted -sim.planted.share=$(PLANTED_SHARE)

.PHONY: chaos
chaos: ## Kill and pause a real node, and break a cluster of three, for CHAOS_FOR (10m), and check every answer
	$(GO) test ./internal/chaos -count=1 -timeout 0 -v -args -chaos.for=$(CHAOS_FOR)

.PHONY: suspend
suspend: ## The Go tests with every wait suspending, and timers, rows, entries and parts taken one or a few at a time (SUSPEND_PACKAGES without the tests SUSPEND_SKIP; all before a release)
	$(GO) test $(TESTFLAGS) -ldflags '$(STRESS)' $(if $(SUSPEND_SKIP),-skip '$(SUSPEND_SKIP)') $(SUSPEND_PACKAGES)

.PHONY: crash
crash: ## The tests of handlers on nodes, with every attempt crashing at every entry that it records (CRASH_PACKAGES)
	$(GO) test $(TESTFLAGS) -ldflags '$(CRASH)' $(CRASH_PACKAGES)

.PHONY: long
long: ## One invocation with 100,000 entries and 1 GB of results, and one with a result of 512 MiB: time, memory, replay speed
	$(GO) test ./cluster -run '^TestLongJournal$$' -count=1 -timeout 0 -v -args -long.entries=100000 -long.bytes=1000000000
	$(GO) test ./cluster -run '^TestLargestResult$$' -count=1 -timeout 0 -v -args -long.result=536870912

.PHONY: fuzz
fuzz: ## Fuzz every fuzz target for FUZZTIME (30s)
	@GO='$(GO)' FUZZTIME='$(FUZZTIME)' .ci/fuzz

.PHONY: demo
demo: ## Kill a bank in the middle of transfers and prove its books
	$(GO) run ./examples/bank/demo

.PHONY: bench
bench: ## Measure Perdure, Restate beside it, and the floor of this machine (20 minutes; BENCHFLAGS=-transactions: transactions, 10 minutes; -cluster: clusters, 15)
	$(GO) run ./bench/cmd/bench $(BENCHFLAGS)

.PHONY: sleepers
sleepers: ## Measure a million workflows that sleep on one node: memory, disk, wake-ups, lateness (15 minutes)
	$(GO) run ./bench/cmd/sleepers -count 1000000 -after 8m -spread 5m

.PHONY: microbench
microbench: ## Run the Go benchmarks into bench.txt, for benchstat
	$(GO) test -run '^$$' -bench . -benchmem -count $(BENCH_COUNT) -p 1 -timeout 0 -vet=off $(BENCH_PACKAGES) | tee $(BENCH_OUT)

.PHONY: lint
lint: fmtcheck vet ## Format check, go vet, and golangci-lint if it is installed
	@if command -v golangci-lint >/dev/null; then golangci-lint run; \
	else echo "golangci-lint is not on PATH: left out"; fi

.PHONY: fmtcheck
fmtcheck: ## Fail if gofmt would change a file
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then printf 'not formatted; run gofmt -w on:\n%s\n' "$$unformatted"; exit 1; fi

.PHONY: vet
vet: ## go vet
	$(GO) vet ./...

.PHONY: lintproto
lintproto: ## buf lint
	$(BUF) lint

.PHONY: generate
generate: ## Generate Go from the .proto files, and what the generator's tests expect
	$(BUF) generate
	$(BUF) build codegen/testdata/golden -o codegen/testdata/golden.binpb
	$(GO) test ./codegen -update

.PHONY: checkgenerate
checkgenerate: generate ## Generate, and fail if that changed anything
	git diff --exit-code
	@new=$$(git ls-files --others --exclude-standard); \
	if [ -n "$$new" ]; then printf 'generated and not committed:\n%s\n' "$$new"; exit 1; fi

.PHONY: listings
listings: ## Write the committed import graph and API listings as they are now
	$(GO) test ./internal/archtest -run 'TestImportGraph|TestPublicAPI' -update

# perdure-data is somebody's data: it stays.
.PHONY: clean
clean: ## Remove what was built and measured
	rm -rf bin bench-out $(BENCH_OUT) coverage.out
	find . -name .git -prune -o -type f \( -name '*.test' -o -name '*.prof' \) -print -delete
