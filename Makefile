# `make` without a target lists the targets. Each works in a fresh clone. Downloads go to .cache/.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
# Only scripts read this variable. It is not a setting: those have two underscores after the section.
TOKENBUS_CACHE ?= $(CURDIR)/.cache
BRING_NATS = TOKENBUS_CACHE='$(TOKENBUS_CACHE)' nats/bring-nats
# A separate assignment before the export, so that a failing script ends the recipe.
WITH_NATS = nats_server=$$($(BRING_NATS)); unset TOKENBUS_CACHE; export NATS_SERVER="$$nats_server";

QUIET = export TOKENBUS_LOG__FILTER="$${TOKENBUS_LOG__FILTER:-warn}";

.PHONY: help nats build package run cluster demo test conformance chaos soak attack bench fmt lint doc ci cargo

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 20

nats: ## fetch a nats-server if none is installed, and print its path
	@$(BRING_NATS)

build: cargo ## build the program for release
	$(CARGO) build --release

package: cargo ## build a static program, a Debian package and an SBOM into target/package, as far as the tools are here
	@CARGO='$(CARGO)' config/deploy/package

# The dev profile builds in a fraction of the release build's time, and is fast enough for the demo.
run: cargo ## start everything, do one login, and keep running
	@$(WITH_NATS) $(QUIET) exec $(CARGO) run -- demo --stay --nats-server "$$NATS_SERVER"

cluster: cargo ## start three nats-servers, two gateways and three workers, do one login, and keep running
	@$(WITH_NATS) $(QUIET) exec $(CARGO) run -- demo --stay --cluster nats/cluster --nats-server "$$NATS_SERVER"

demo: cargo ## start everything, do one login from end to end, and stop
	@$(WITH_NATS) $(QUIET) exec $(CARGO) run -- demo --nats-server "$$NATS_SERVER"

# Tests mostly wait for servers and clocks, so three of them run on each core.
THREE_A_CORE = export RUST_TEST_THREADS="$${RUST_TEST_THREADS:-$$((3 * $$(getconf _NPROCESSORS_ONLN)))}";

# Tests that need the cores for themselves: they send more calls than a busy machine carries out, or compare latencies.
ALONE = hostile_rates:: h1_malformed_headers_of_one nodes_flood::

test: cargo ## run all tests that need only nats-server
	@$(WITH_NATS) $(THREE_A_CORE) $(CARGO) test --features failpoints -- $(addprefix --skip ,$(ALONE))
	@$(WITH_NATS) $(CARGO) test --features failpoints --test it -- --test-threads 1 $(ALONE)

conformance: cargo ## run the tests against a real authorization server (needs node and npm), schemathesis, and the examples of nodes
	@$(WITH_NATS) CACHE='$(TOKENBUS_CACHE)' $(CARGO) test --features failpoints --test conformance -- --nocapture

# CHAOS_SECONDS sets the time with faults, half of it on one server and half on three. CHAOS_SEED repeats the faults of an earlier
# run, CHAOS_TESTS selects tests by name, and with RUST_TEST_THREADS=2 one server and three run at the same time.
chaos: cargo ## break workers, gateways, servers and the provider for eight minutes, and check that nothing is lost
	@$(WITH_NATS) export RUST_TEST_THREADS="$${RUST_TEST_THREADS:-1}"; \
	  $(CARGO) test --features failpoints --test chaos -- --nocapture $(CHAOS_TESTS)

# SOAK_SECONDS sets the time under load. CHAOS_PROGRAM is another build to test than the debug build, such as a release build.
soak: cargo ## keep up a moderate load of all kinds for twenty minutes, and check that nothing grows
	@$(WITH_NATS) export SOAK_SECONDS="$${SOAK_SECONDS:-1200}"; \
	  $(CARGO) test --features failpoints --test chaos -- --nocapture nothing_grows_under_constant_load

# ATTACK_SECONDS sets the time under attack. A run takes three times as long, because calm windows alternate with it.
attack: cargo ## attack a running system for two minutes, and check that another tenant loses nothing
	@$(WITH_NATS) $(CARGO) test --features failpoints --test attack -- --nocapture --test-threads=1

bench: cargo ## run the benchmarks, and write figures and a plot to docs/
	@$(WITH_NATS) export COMPARE_WRITE=figures LATENCY_WRITE=latencies; $(CARGO) bench

fmt: cargo ## format the code
	$(CARGO) fmt

lint: cargo ## check format, lints, dependencies and documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --all-features -- -D warnings
	$(CARGO) clippy --test conformance --test attack --test chaos --all-features -- -D warnings
	$(CARGO) clippy --lib --bins -- -D warnings  # as shipped: without the feature `internals`
	@CARGO='$(CARGO)' .ci/check-dependencies
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps

doc: cargo ## build the documentation of the code
	$(CARGO) doc --no-deps --document-private-items

ci: lint test conformance demo ## run everything that a change must pass
	@$(MAKE) chaos CHAOS_SECONDS=120 CHAOS_SEED=1 CHAOS_TESTS=nothing_is_lost RUST_TEST_THREADS=2
	@$(MAKE) attack ATTACK_SECONDS=30 CI=1

cargo:
	@command -v $(CARGO) >/dev/null || { echo 'cargo is missing; install Rust: https://rustup.rs' >&2; exit 1; }
