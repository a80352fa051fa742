# The set-up is part of every target that needs it and does only what is missing.
# Paths are relative and quoted by never being expanded: the checkout may lie in a folder with spaces.
.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-long lint format types lock zip cluster clean clean-venv
export PYTHON TORCH_INDEX

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: ## virtual environment, dependencies, Java, Delta's jars: whatever is missing
	@bash scripts/setup.sh

quickstart: setup ## sample videos -> gated tables of media, frames and labels, and a report, under quickstart/
	@.venv/bin/visionlake sample quickstart/sample
	@.venv/bin/visionlake run examples/quickstart.toml

test: setup ## all tests but the long ones
	.venv/bin/pytest -m "not long" --durations=10

test-long: setup ## the long tests
	.venv/bin/pytest -m long --durations=10

lint: setup ## style
	.venv/bin/ruff check
	.venv/bin/ruff format --check

format: setup ## mends style where that is safe
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

types: setup ## static types
	@bash scripts/link_types.sh
	.venv/bin/pyright

lock: setup ## resolves requirements/lock.txt again (UPGRADE=--upgrade for the newest versions)
	bash scripts/lock.sh $(UPGRADE)

cluster: setup ## a Spark master and two workers on this machine, until Ctrl-C
	@.venv/bin/python scripts/cluster.py

zip: setup ## dist/visionlake.zip for spark-submit --py-files
	.venv/bin/python scripts/make_zip.py

clean: ## removes what was built and what the quickstart made
	rm -rf build dist quickstart .typing .pytest_cache .ruff_cache *.egg-info

clean-venv: ## removes the virtual environment
	rm -rf .venv
