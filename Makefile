# make up      run Perennial on this machine with the quickstart's certificates
# make up-acme the same with an ACME server and a DNS server on this machine
# make image   build the container image of perennial into dist/image
# make chart   package the Helm chart into dist
# make dist    build archives and Debian packages of perennial and perenniald into dist
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

.PHONY: up up-acme test bench fuzz lint generate build image chart dist

up:
	@scripts/step "building perenniald (the first time this compiles kube-apiserver: some minutes)" go build -o bin/perenniald ./standalone/cmd/perenniald
	@exec bin/perenniald --data-dir $(DATA) --manifests $(MANIFESTS) --table

up-acme:
	@scripts/step "building perenniald (the first time this compiles kube-apiserver: some minutes)" go build -o bin/perenniald ./standalone/cmd/perenniald
	@scripts/step "building the CA and the DNS server" go build -o bin/lab ./test/lab
	@exec bin/lab -perenniald bin/perenniald -manifests examples/acme -data-dir .perennial-acme

build:
	@scripts/step "building perennial" go build -o bin/perennial ./cmd/perennial
	@scripts/step "building perenniald" go build -o bin/perenniald ./standalone/cmd/perenniald

image:
	@scripts/step "building the image" go run ./test/image/build -out dist

chart:
	@scripts/step "packaging the chart (the first time this compiles Helm: some minutes)" go run ./test/chart/package -out dist

dist:
	@scripts/step "building archives and packages (the first time this compiles kube-apiserver twice)" \
		go run ./test/dist/build -out dist

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
