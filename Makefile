# The short commands. Each sets up what it needs; as root missing packages are installed.

.DEFAULT_GOAL := help
.PHONY: help demo test world soak lint run bench fmt sqlx proto-lint ci

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{ printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Send a letter through a private server and watch its log
	scripts/setup demo
	cargo build --locked
	cargo run --quiet --locked -- demo

test: ## Run all tests
	scripts/setup test
	cargo test --locked

world: ## Kill, stop, cut off and fill up what the server lives on, for an hour or two
	scripts/setup world
	tests/world/all

soak: ## Random load and random faults, for SOAK_MINUTES (30)
	scripts/setup world
	cargo bench --locked --bench world -- soak

lint: ## Check format, lints and documentation
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

run: ## Start the server with a private PostgreSQL
	scripts/setup demo
	cargo run --locked -- serve

bench: ## Measure it beside Postfix and others; BENCH=--quick takes minutes
	scripts/setup bench
	cargo bench --locked --bench compare -- $(BENCH)

fmt: ## Format the sources
	cargo fmt

sqlx: ## Renew .sqlx/ after a change of a query or a migration
	scripts/setup demo
	scripts/sqlx

proto-lint: ## Check the contract, and that it breaks no client
	scripts/setup ci
	scripts/proto-lint

ci: ## What the continuous integration runs
	.ci/run
