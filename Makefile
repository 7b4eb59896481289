# `make demo` and `make test` are .ci/demo and .ci/test; the rest is for work on the project.
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH

.PHONY: demo test setup check static unit hosts scenario faults engine_faults alert_faults docs lab-up lab-down clean

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
	python python/tools/role_readme.py --check

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

# Kills and fills disks in the middle of an installation, twenty and ten times: most of an hour.
faults: NAME = bundle_faults
faults: scenario

# Kills an engine ten times: a quarter of an hour.
engine_faults: NAME = vllm_faults
engine_faults: scenario

# Breaks a fleet of stand-in engines in seven ways and waits for the pages: a quarter of an hour.
alert_faults: NAME = alerts
alert_faults: scenario

docs:
	python python/tools/role_readme.py

lab-up:
	rackserve lab up

lab-down:
	rackserve lab down

clean:
	rm -rf .test-results .mypy_cache .ruff_cache .pytest_cache
