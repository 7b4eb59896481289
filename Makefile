# `make demo` and `make test` are .ci/demo and .ci/test; the rest is for work on the project.
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH

.PHONY: demo test nightly setup check static unit hosts scenario docs lab-up lab-down clean

demo:
	.ci/demo

test:
	.ci/test

setup:
	.ci/setup

check: static unit

static:
	yamllint --strict .
	ansible-lint --offline
	ruff check .
	ruff format --check .
	mypy
	mypy python/tools
	python python/tools/check_roles.py
	python python/tools/check_docs.py
	python python/tools/role_readme.py --check
	python python/tools/dashboards.py --check

unit:
	pytest

# The hosts of every scenario. Molecule would believe its own record of what runs, even one that outlived the hosts.
hosts:
	molecule reset --scenario-name default
	molecule create --scenario-name default

# make scenario NAME=vllm
scenario: hosts
	molecule reset --scenario-name $(NAME)
	molecule test --scenario-name $(NAME) --destroy never

# The scenarios that `make test` leaves out: some hours; `make nightly NAMES="keepalived alerts"` runs those two.
# Their verdicts are in docs/measurements/nightly.md.
nightly:
	.ci/nightly $(NAMES)

docs:
	python python/tools/role_readme.py
	python python/tools/dashboards.py

lab-up:
	rackserve lab up

lab-down:
	rackserve lab down

clean:
	rm -rf .test-results .mypy_cache .ruff_cache .pytest_cache
