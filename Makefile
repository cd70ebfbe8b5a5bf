# The recipes of the project. `make` alone lists them.

.PHONY: help setup build test demo check release clean
.DEFAULT_GOAL := help

help: ## list the recipes
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: ## install what building and testing need (Debian packages)
	@scripts/setup.sh

build: setup ## build the programs (target/debug)
	cargo build --workspace --locked

test: setup ## build, and run every test on the real programs
	@scripts/test.sh

demo: setup ## build, and watch a farm on this machine lease, push, run, survive, collect, expire
	@scripts/demo.sh

check: setup ## what CI checks besides the tests: format, lints, documentation, licences
	@scripts/check.sh

release: setup ## build the programs for use (target/release)
	cargo build --release --locked

clean: ## remove what was built
	cargo clean
