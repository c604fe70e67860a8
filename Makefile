# Plimsoll's commands. `make` alone lists them. Each is what a person can run; .ci/run calls nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Passed on to the program: make up ARGS="--data D --port-base 18800"
ARGS ?=
# How long each fuzz target runs, in seconds.
FUZZ_SECONDS ?= 60

# One line that says what is missing, before anything else fails with twenty.
define needs
	@command -v $(1) >/dev/null 2>&1 || { echo "plimsoll: needs \`$(1)\`: $(2)" >&2; exit 1; }
endef
cargo := $(call needs,cargo,install Rust 1.95 or later from https://rustup.rs)
npm := $(call needs,npm,install Node 20.19 or later with npm from https://nodejs.org)
cc := $(call needs,cc,install a C compiler (Debian: apt-get install build-essential))

.PHONY: help up demo test test-services check bench fuzz build console test-console package

# What the console is made of: it is built when one of them is newer than what was built.
console_built := console/dist/site/index.html
console_modules := console/node_modules/.package-lock.json
console_sources := console/index.html console/vite.config.ts console/package.json $(shell find console/src -type f)

help: ## this list
	@echo "Plimsoll: who a device is, what it says, with evidence. Commands:"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

$(console_modules): console/package.json console/package-lock.json
	$(npm)
	cd console && npm ci --no-audit --no-fund
	@touch $@

$(console_built): $(console_modules) $(console_sources)
	cd console && npm run build

console: $(console_built) ## the web console's files, in console/dist/site; control serves what is there when it is built

up: console ## the whole road on this machine: control, bus, store, a gateway, two devices (ARGS="--data D --port-base N")
	$(cargo)
	$(cc)
	cargo build -p cli -p agent -p gateway -p app
	@exec target/debug/plimsoll up $(ARGS)

build: console ## every executable, in target/debug
	$(cargo)
	$(cc)
	cargo build --workspace --bins

demo: build ## unattended: a fleet on a bad day, then every promise counted; nonzero exit when one is broken
	@exec target/debug/plimsoll-sim demo $(ARGS)

test: build ## all tests, with the list of skipped ones (ARGS goes to the test runner)
	cargo xtask test $(ARGS)

test-console: build ## the console in a real browser against the product (CHROMIUM names the browser)
	console/tests/run $(ARGS)

test-services: build ## foreign clients against a running road: openssl, curl, strongSwan, mosquitto, python-tuf
	tests/services/run $(ARGS)

check: ## rustfmt, clippy, crate graph, licences, sources, advisories where reachable, documents
	$(cargo)
	$(cc)
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@$(MAKE) --no-print-directory $(console_modules)
	cd console && npm run check
	cargo xtask check-all

bench: ## figures of docs/benchmarks.md, measured here (release build)
	$(cargo)
	$(cc)
	bench/run $(ARGS)

fuzz: build ## every parser of foreign bytes for FUZZ_SECONDS each (60), from a kept corpus
	target/debug/fuzz --seconds $(FUZZ_SECONDS) $(ARGS)

package: $(console_built) ## Debian packages in target/packages, with their sizes (release build; ARGS="--profile dev" for a try)
	$(cargo)
	$(cc)
	packaging/build $(ARGS)
