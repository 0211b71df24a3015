# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
BIN   := bin
FUZZTIME ?= 30s
# The race detector needs a C compiler; without one the tests run without it.
RACE  := $(shell command -v gcc >/dev/null 2>&1 && echo -race)

.PHONY: help build demo test check bench bench-compare fuzz integration transcript generate clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build kontor and kontor-verify into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(BIN)/ ./cmd/kontor ./cmd/kontor-verify

demo: build ## a whole ecosystem on this machine: one signed exchange, its evidence verified; then it keeps running
	@./$(BIN)/kontor sandbox --demo

test: ## all tests, with the race detector where there is a C compiler
	go vet ./...
	go test $(RACE) -shuffle=on -timeout 30m ./...

check: ## formatting, vet, linters, house rules, generated files
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt -w on these"; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	go test -run 'TestImports|TestTopLevel|TestFiles' .
	go generate ./... && git diff --exit-code -- docs/faults.md

integration: build ## tests with real processes and strangers' tools: kill -9, xmlsec1, openssl, curl, zeep; GovStack's with KONTOR_GOVSTACK_HARNESS=…/test/openAPI
	KONTOR_KILLS=20 KONTOR_REGISTRY_KILLS=50 KONTOR_BIN=$(CURDIR)/$(BIN) go test -count=1 -v -timeout 30m ./integration/...

transcript: build ## the operator's guide, typed into a shell on a blank folder
	KONTOR_BIN=$(CURDIR)/$(BIN) go test -count=1 -v -timeout 15m ./integration/transcript

fuzz: ## every fuzz target for FUZZTIME (default 30s)
	@set -e; for p in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "== $$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p; \
	  done; done

# Sections: quick, core, keys, soap, bodies, start, stages, ecosystem, netem,
# sustained, all. Without any: all but quick and sustained.
BENCH ?=
BENCHFLAGS ?=

bench: build ## measure beside reference chains; BENCH=quick: the core comparison in three minutes; docs/benchmarks.md
	@mkdir -p $(BIN)/bench
	@go build -o $(BIN)/bench/ ./integration/bench
	@$(BIN)/bench/bench -bin $(BIN) -cache $(BIN)/bench -docs docs/benchmarks.md $(BENCHFLAGS) $(BENCH)

bench-compare: ## benchmarks of the packages on BASE=COMMIT and now, compared by benchstat
	@integration/bench/compare.sh "$(BASE)" $(BIN)/bench

generate: ## regenerate docs/faults.md
	go generate ./...

clean: ## remove build output and the sandbox
	rm -rf $(BIN) sandbox
