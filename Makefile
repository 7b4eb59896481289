# `make demo` and `make test` are .ci/demo and .ci/test; the rest is for work on the project.
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH

.PHONY: demo test nightly setup lab-setup bundle check static lint format new-role unit hosts scenario docs lab-up lab-down clean

demo:
	.ci/demo

test:
	.ci/test

setup:
	.ci/setup

lab-setup:
	.ci/setup lab

# The lab's bundle, where an input of it has changed: what roles install, inventory/, the commit.
bundle: lab-setup
	.ci/bundle

check: static unit

static: lint
	ansible-lint --offline
	mypy

# The fast half of `static`, which is also the hook of pre-commit.
lint:
	yamllint --strict .
	ruff check .
	ruff format --check .
	lint-imports --no-logo
	shellcheck --external-sources $$(git grep --untracked -lE '^#(!.*[/ ](ba)?sh| shellcheck shell=.*)$$')
	@# Debian has the only luacheck; CI installs it.
	@if [ "$$CI" = true ] || command -v luacheck >/dev/null; then luacheck --quiet --no-color roles/nginx/files; \
	else echo 'luacheck skipped: apt-get install lua-check'; fi
	python python/tools/check_roles.py
	python python/tools/check_docs.py
	python python/tools/argument_specs.py --check
	python python/tools/role_readme.py --check
	python python/tools/dashboards.py --check

format:
	ruff check --fix .
	ruff format .

# make new-role NAME=chrony
new-role:
	@python python/tools/new_role.py $(NAME)

unit:
	pytest --numprocesses auto --dist worksteal

# The hosts of every scenario. Molecule would believe its own record of what runs, even one that outlived the hosts.
hosts: lab-setup
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
	python python/tools/argument_specs.py
	python python/tools/role_readme.py
	python python/tools/dashboards.py

lab-up: lab-setup
	rackserve lab up

lab-down:
	rackserve lab down

clean:
	rm -rf .test-results .import_linter_cache .mypy_cache .ruff_cache .pytest_cache
