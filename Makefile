# `make run` and `make check` only need Go; `make test` installs what else it needs
# (see .ci/tools).

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
CHAOSTIME ?= 2h
SOAKTIME ?= 1h
STEPS    ?= 1000000

# The Go release that go.mod names, and not an older one, for what it has mended.
export GOTOOLCHAIN ?= $(shell sed -n 's/^toolchain //p' go.mod)

export PATH := $(CURDIR)/.cache/bin:$(PATH)

# What CI compiles without the race detector it compiles as the image is, so that
# lint, the chart's tests and the image share it.
lint test-deploy test-python: export GOFLAGS += -trimpath
lint test-deploy test-python: export CGO_ENABLED = 0

# The modules of the repository that lint checks.
MODULES = . test bench bench/libraries deploy

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
.PHONY: help

run: build ## build, and serve config/examples in memory on loopback
	bin/ratelimit serve --config config/examples --backend memory \
		--grpc-addr 127.0.0.1:8081 --http-addr 127.0.0.1:8080 --admin-addr 127.0.0.1:6070
.PHONY: run

build: ## bin/ratelimit, a static binary
	@[ -e bin/ratelimit ] || echo 'The first build compiles everything: two minutes on two idle cores.'
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ratelimit ./cmd/ratelimit
.PHONY: build

check: ## format, go vet and the unit tests that only need Go; installs nothing
	@unformatted=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
		test -z "$$unformatted" || { echo "gofmt -w $$unformatted" >&2; exit 1; }
	$(GO) vet ./...
	cd test && $(GO) vet ./...
	$(GO) test -vet=off -short ./...
.PHONY: check

# In `make test` a test fails whose program is missing; see internal/testprogram.
# Its tests leave go vet to lint.
test test-unit test-integration conformance gateway test-clients chaos soak: export TEST_PROGRAMS_REQUIRED = 1

# Two stages at a time: one waits for much of its time, and the others compute meanwhile.
test: tools ## install what is needed and run everything
	$(MAKE) -j 2 --output-sync --no-print-directory test-integration test-unit lint fuzz test-sequential vuln test-deploy test-python
.PHONY: test

# Tests in which one goroutine decides at a time, which measure memory, or which read what a
# command prints. The race detector finds nothing there and takes five times as long. The services that
# test-integration starts are built with it.
SEQUENTIAL_TESTS = Script Migration Words FileStore Reference Conformance\w* \w*Model BytesKeepToTheBound FloodForgivesNobody \
	AddingSweeps MaxBytes ASetThatIsTooLargeIsRefused AnAuditLineIsBounded StateSize Damage RealClock Fractions \
	ParseBytes ReplaceComparesManyRulesInFull ManyWildcards Lookup FindingsHold FewAreTried \
	GreedyCallersGetNoMoreThanTheBound DebtIsBounded LeasesNeverExceedTheShare
space := $(subst ,, )
SEQUENTIAL := Test($(subst $(space),|,$(strip $(SEQUENTIAL_TESTS))))

test-unit: ## unit tests, with the race detector
	$(GO) test -vet=off -race -skip '^$(SEQUENTIAL)$$' -timeout 20m ./...
	cd bench && $(GO) test -vet=off -race -timeout 20m ./...
.PHONY: test-unit

test-sequential: ## the unit tests that the race detector is no use to
	$(GO) test -vet=off -run '^$(SEQUENTIAL)$$' -timeout 20m $$(git grep --untracked -lE '^func $(SEQUENTIAL)\(' -- cmd docs internal | xargs -n 1 dirname | sort -u | sed 's|^|./|')
.PHONY: test-sequential

test-python: tools ## the Python client, with its linters, in real frameworks and servers
	cd clients/python && export PATH="$(CURDIR)/.cache/python/bin:$$PATH" && ruff format -q --check && ruff check -q && python -m mypy && python -m pytest
.PHONY: test-python

test-deploy: ## the chart and all manifests, rendered and checked
	cd deploy && $(GO) test -vet=off -count=1 ./...
.PHONY: test-deploy

# Parallel tests wait for most of their time: more of them than processors may run. The
# package that takes longest begins first. Only test/front runs the service in its own process.
test-integration: ## the real binary, built with the race detector, behind the real Envoy
	cd test && $(GO) test -vet=off -race -count=1 -timeout 20m ./front
	cd test && $(GO) test -vet=off -count=1 -parallel 6 -timeout 20m ./integration $$($(GO) list ./... | grep -v '/front$$')
.PHONY: test-integration

conformance: tools ## STEPS random requests through each store, each decision compared field by field
	BACKENDTEST_STEPS=$(STEPS) $(GO) test -count=1 -timeout 0 -run 'Conformance$$' -v ./internal/backend/memory ./internal/backend/redis
.PHONY: conformance

test-servers: tools ## the store's tests on a server of each family, STEPS=20000 random requests each; see docs/redis.md
	.ci/servers
	BACKENDTEST_STEPS=$(if $(filter file,$(origin STEPS)),20000,$(STEPS)) \
		REDIS_SERVERS="redis-server redis-server-6.2 redis-server-8.0 redis-server-8.2 valkey-server-8.0 valkey-server-8.1 valkey-server-9.1 redict-server-7.3" \
		$(GO) test -count=1 -timeout 0 -v -run '^(TestServers|TestConformanceBehindShardingProxies|TestShardingProxyWithADeadServer)$$' ./internal/backend/redis
.PHONY: test-servers

gateway: tools ## the real Envoy Gateway, with a policy of each kind, before the image; see docs/dev/counterparts.md
	.ci/gateway
	cd test && ENVOY_GATEWAY=envoy-gateway $(GO) test -vet=off -count=1 -timeout 0 -v -run '^TestRealEnvoyGateway$$' ./container
.PHONY: gateway

test-clients: tools ## gRPC clients in Python and Node.js; see docs/dev/counterparts.md
	.ci/clients python node
	cd test && GRPC_CLIENTS="grpc-python grpc-node" $(GO) test -vet=off -count=1 -v ./clients
.PHONY: test-clients

chaos: tools ## random rules, requests and faults for CHAOSTIME, from SEED on; see docs/dev/reliability.md
	cd test && $(GO) test -race -count=1 -timeout 0 -v -run TestChaos ./chaos -duration $(CHAOSTIME) $(if $(SEED),-seed $(SEED))
.PHONY: chaos

soak: tools ## mixed load for SOAKTIME, under which nothing may grow; plotted in docs/dev/img
	cd test && $(GO) test -count=1 -timeout 0 -v -run TestSoak ./soak -duration $(SOAKTIME) -csv $(CURDIR)/docs/dev/soak.csv
	cd bench && $(GO) run ./cmd/plots --soak ../docs/dev/soak.csv ../docs
.PHONY: soak

lint: ## golangci-lint, with gofmt and go vet among its checks; that all compiles for macOS
	@set -e; for module in $(MODULES); do echo "golangci-lint $$module"; (cd $$module && golangci-lint run ./...); done
	GOOS=darwin $(GO) vet -buildtag ./... # one pass, which needs nothing of packages beside their types
.PHONY: lint

vuln: ## known vulnerabilities in what the code calls; VULNDB=latest asks the newest database
	.ci/vuln
.PHONY: vuln

fuzz: ## each fuzz target for some seconds from its seeds on; FUZZTIME=10m is a long run
	.ci/fuzz
.PHONY: fuzz

bench: tools ## algorithms, matcher, store (1 and 2 cores), and the service beside servers that do nothing; see bench/
	$(GO) test -run '^$$' -bench 'InPlace|Lookup$$' -benchtime 100ms -benchmem ./internal/algo ./internal/descriptor
	$(GO) test -run '^$$' -bench 'Decide$$' -benchtime 1000000x -cpu 1,2 -benchmem ./internal/backend/memory
	$(GO) test -run '^$$' -bench Memory -benchtime 1x ./internal/backend/memory
	cd bench && $(GO) run ./cmd/bench report $(BENCHFLAGS)
.PHONY: bench

bench-reload: ## latency while 100,000 rules are loaded again and again, and what a reload costs
	$(GO) test -run '^$$' -bench Reload -benchtime 5x -benchmem ./internal/limiter
	cd bench && $(GO) run ./cmd/bench reload
.PHONY: bench-reload

bench-compare: ## the working tree beside the commit BASE, with benchstat
	bench/compare $(BASE)
.PHONY: bench-compare

bench-libraries: ## the stores beside rate-limit libraries for Go, in memory and in Redis
	@mkdir -p bin
	bench/libraries/run bin/libraries.txt
	cd bench && $(GO) run ./cmd/bench libraries ../bin/libraries.txt
.PHONY: bench-libraries

performance: tools ## measure everything and rewrite docs/dev/performance.md with its plots; ten minutes on an idle machine
	@mkdir -p bin
	cd bench && $(GO) run ./cmd/bench report --no-lean --json ../bin/report.json $(BENCHFLAGS)
	bench/libraries/run bin/libraries.txt
	cd bench && $(GO) run ./cmd/bench docs --report ../bin/report.json --libraries ../bin/libraries.txt
	$(MAKE) plots
.PHONY: performance

# Which programs: docs/dev/counterparts.md.
side-by-side: tools ## the service beside envoyproxy/ratelimit and Limitador, whose programs RATELIMIT and LIMITADOR are
	cd bench && $(GO) run ./cmd/bench report --algorithms fixed_window --scenarios base,eight,hot,million,refused --no-latency \
		--freeze 20ms,10s $(if $(RATELIMIT),--others envoyproxy/ratelimit=$(RATELIMIT)) $(if $(LIMITADOR),--others limitador=$(LIMITADOR)) $(BENCHFLAGS)
.PHONY: side-by-side

performance-docs: ## rewrite docs/dev/performance.md and its plots from docs/dev/performance.json
	cd bench && $(GO) run ./cmd/bench docs
	$(MAKE) plots
.PHONY: performance-docs

flood: tools ## far too much of everything, with figures: memory, stalls, and what is answered in time
	cd bench && $(GO) run ./cmd/bench flood $(FLOODFLAGS)
.PHONY: flood

pgo: ## cmd/ratelimit/default.pgo, which the compiler uses if it is there, from a run under load
	dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	(cd bench && $(GO) run ./cmd/bench report --scenarios base --rounds 1 --no-latency --no-envoy --profiles "$$dir") && \
	$(GO) tool pprof -proto "$$dir"/*.pprof >cmd/ratelimit/default.pgo
.PHONY: pgo

plots: ## draw docs/img, docs/dev/img and the tables of docs/algorithms.md by running the algorithms, and the figures of docs/dev/performance.json
	cd bench && $(GO) run ./cmd/plots ../docs
	$(GO) test -count=1 -run TestSmallLimits ./docs -update
.PHONY: plots

tools: ## install the programs that lint and tests use
	.ci/tools
.PHONY: tools

clean: ## remove what was built, downloaded tools too
	rm -rf bin .cache
.PHONY: clean
