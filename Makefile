# make up      run Perennial on this machine with the quickstart's certificates
# make test    run all tests
# make bench   measure certificates a second, memory and API requests
# make fuzz    fuzz every parser for FUZZTIME each
# make lint    what .ci/run checks beside the tests

SHELL := /bin/bash
DATA ?= .perennial
MANIFESTS ?= examples/quickstart
FUZZTIME ?= 20s
MODULES := . standalone test
PACKAGES := ./... ./standalone/... ./test/...

.PHONY: up test bench fuzz lint generate build

up:
	@scripts/step "building perenniald (the first time this compiles kube-apiserver: some minutes)" go build -o bin/perenniald ./standalone/cmd/perenniald
	@exec bin/perenniald --data-dir $(DATA) --manifests $(MANIFESTS) --table

build:
	@scripts/step "building perennial" go build -o bin/perennial ./cmd/perennial
	@scripts/step "building perenniald" go build -o bin/perenniald ./standalone/cmd/perenniald

test:
	@scripts/test

bench:
	@go -C test run ./bench

fuzz:
	@scripts/fuzz $(FUZZTIME)

lint:
	@scripts/lint

generate:
	@go generate ./...
