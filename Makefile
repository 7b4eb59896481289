# `make demo` and `make test` are .ci/demo and .ci/test; the rest is for work on the project.
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH

.PHONY: demo test setup check static unit hosts scenario faults engine_faults alert_faults edge_faults edge_engine doctor_faults driver driver_bundles edge_pair pooling docs lab-up lab-down clean

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

# Kills and fills disks in the middle of an installation, twenty and ten times: most of an hour.
faults: NAME = bundle_faults
faults: scenario

# Kills an engine ten times: a quarter of an hour.
engine_faults: NAME = vllm_faults
engine_faults: scenario

# Breaks a fleet of stand-in engines in nine ways and waits for the pages: a quarter of an hour.
alert_faults: NAME = alerts
alert_faults: scenario

# Fails engines behind the edge in six ways, starves it, and audits it: a quarter of an hour.
edge_faults: NAME = edge_faults
edge_faults: scenario

# What the edge costs, a flood, and 300 streams of two real engines through reloads and a drain: a quarter of an hour.
edge_engine: NAME = edge_engine
edge_engine: scenario

# Breaks a small fleet in seventeen ways and asks `rackserve doctor` for the cause: a quarter of an hour.
doctor_faults: NAME = doctor_faults
doctor_faults: scenario

# Debian's own NVIDIA drivers on a host without a GPU: built, held, changed, gone back, removed. Three builds of modules.
driver: NAME = nvidia_driver
driver: driver_bundles scenario

driver_bundles:
	.ci/driver_bundles

# Takes one of two edges away in several ways and sees the address that they share move: ten minutes.
edge_pair: NAME = keepalived
edge_pair: scenario

# Serves vectors with a real engine: five minutes.
pooling: NAME = vllm_pooling
pooling: scenario

docs:
	python python/tools/role_readme.py
	python python/tools/dashboards.py

lab-up:
	rackserve lab up

lab-down:
	rackserve lab down

clean:
	rm -rf .test-results .mypy_cache .ruff_cache .pytest_cache
