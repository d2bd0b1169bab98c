# Every verb that people type. make help lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

ENV ?= prod
INVENTORY ?= inventory/hosts.yml
# Settings for this run: make up SET='stack_compose_api_replicas=4 stack_dir=/srv/stack'
SET ?=
# swarm: one stack on all machines together, with every verb.
ORCHESTRATOR ?=
# More for ansible-playbook: make up ARGS='--limit lab1'
ARGS ?=

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# With the settings that reach a package index: a machine that is made has to reach it too.
SUDO_AS_IS := $(SUDO:%=% --preserve-env)
# Ansible and testinfra look for their programs by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# ansible-lint and Molecule read all of Ansible's settings as if they were Python. One is a directory of
# a random name, and now and then that looks like a number with a keyword behind it.
NO_NUMBER := invalid decimal literal
export PYTHONWARNINGS ?= ignore:$(NO_NUMBER):SyntaxWarning

# A run on many machines: BATCH=20 or 25% of them at a time, and MAX_FAILURES=3 or 25%.
FLEET := $(if $(BATCH),-e batch=$(BATCH)) $(if $(MAX_FAILURES),-e max_failures=$(MAX_FAILURES))
# With what was typed, for a summary that says how to go on.
PLAY := STACKYARD_TYPED='$(MAKECMDGOALS)' $(BIN)/ansible-playbook -i $(INVENTORY) $(ORCHESTRATOR:%=-e orchestrator=%) $(SET:%=-e %)
# For verbs that answer a question: the answer alone on the standard output.
ANSWER := ANSIBLE_STDOUT_CALLBACK=plain $(PLAY)
VERIFY := $(BIN)/pytest tests/acceptance -q --hosts=ansible://lab --ansible-inventory=$(INVENTORY) \
  $(SET:%=--set %) $(ORCHESTRATOR:%=--set orchestrator=%) $(if $(DISRUPTIVE),--disruptive) --report build/verify.html
# Checks that start containers and write below /opt.
ROOT_PYTEST := $(SUDO) $(BIN)/pytest -q

.PHONY: help
help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  ENV=dev, INVENTORY=path, SET='name=value ...', ARGS='more for ansible-playbook'"

.PHONY: up
up: $(VENV)/ready ## Turn the lab machines into ones with a healthy stack
	$(PLAY) site.yml -e env=$(ENV) $(FLEET) $(ARGS)

.PHONY: plan
plan: $(VENV)/ready ## Show what up would change, and what drifted; change nothing
	$(PLAY) site.yml -e env=$(ENV) $(FLEET) --check --diff $(ARGS)

.PHONY: releases
releases: $(VENV)/ready ## List what was deployed: when, by whom, from which commit
	@$(ANSWER) playbooks/releases.yml $(ARGS)

.PHONY: rollback
rollback: $(VENV)/ready ## Go back to the release before, or to RELEASE=ID
	$(PLAY) playbooks/rollback.yml $(RELEASE:%=-e release=%) $(ARGS)

.PHONY: rotate-secrets
rotate-secrets: $(VENV)/ready ## Replace the passwords of database and cache while they are in use
	$(PLAY) playbooks/rotate_secrets.yml $(ARGS)

.PHONY: maintenance
maintenance: $(VENV)/ready ## Answer with a page that says so: ON=1, and ON=0 ends it
	$(PLAY) playbooks/maintenance.yml -e on=$(ON) $(ARGS)

.PHONY: pull
pull: $(VENV)/ready ## Have the machines fetch their configuration by a timer: REPO=git-url, none ends it
	$(PLAY) playbooks/pull.yml -e env=$(ENV) $(if $(filter undefined,$(origin REPO)),,-e stack_pull_url='$(REPO)') $(ARGS)

.PHONY: down
down: $(VENV)/ready ## Stop the stack and keep its data
	$(PLAY) playbooks/down.yml $(ARGS)

.PHONY: destroy
destroy: $(VENV)/ready ## Remove the stack and its data: CONFIRM=stackyard, BACKUPS=remove for these too
	$(PLAY) playbooks/destroy.yml -e confirm=$(CONFIRM) $(BACKUPS:%=-e backups=%) $(ARGS)

.PHONY: node
node: $(VENV)/ready ## Swarm: have a machine give away what it has: NODE=lab2 STATE=drain, active, pause or leave
	$(PLAY) playbooks/node.yml -e node=$(NODE) -e state=$(STATE) $(ARGS)

.PHONY: move-database
move-database: $(VENV)/ready ## Swarm: move the database with its data to another machine: TO=lab2
	$(PLAY) playbooks/move_database.yml -e to=$(TO) $(ARGS)

.PHONY: backup
backup: $(VENV)/ready ## Back up the database: FETCH=directory for a copy here
	$(PLAY) playbooks/backup.yml -e '{"stack_backup_fetch": "$(abspath $(FETCH))"}' $(ARGS)

.PHONY: restore
restore: $(VENV)/ready ## Return to the newest backup: TIME='...', BACKUP=label, FROM=copy, UNDO=1
	$(PLAY) playbooks/restore.yml -e '{"stack_backup_time": "$(TIME)", "stack_backup_label": "$(BACKUP)"}' \
	  -e '{"stack_backup_from": "$(abspath $(FROM))", "stack_backup_undo": $(if $(UNDO),true,false)}' $(ARGS)

.PHONY: restore-drill
restore-drill: $(VENV)/ready ## Restore the newest backup beside the stack, and say what is in it
	$(PLAY) playbooks/restore_drill.yml $(ARGS)

.PHONY: verify
verify: $(VENV)/verify-ready ## Check every promise on the running stack: DISRUPTIVE=1 for all
	@$(VERIFY)

.PHONY: status
status: $(VENV)/ready ## Show how every machine fares: JSON=1, make -s for JSON alone
	@$(ANSWER) playbooks/status.yml $(if $(JSON),-e json=1) $(ARGS)

# SERVICE, LINES and SINCE are given on by way of the environment, with whatever is in them.
.PHONY: logs
logs: $(VENV)/ready ## Show logs of all replicas and machines: SERVICE=api, LINES=100, SINCE=10m
	@$(ANSWER) playbooks/logs.yml $(ARGS)

.PHONY: lint
lint: $(VENV)/test-ready ## Lint playbooks, YAML, Python, Dockerfiles and shell scripts
	@# It takes back what it is told of warnings.
	@$(BIN)/ansible-lint -q 2> >(grep -vF 'SyntaxWarning: $(NO_NUMBER)' >&2)
	@$(BIN)/yamllint .
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/hadolint files/*/Dockerfile bench/reference/Dockerfile
	@$(BIN)/shellcheck $$(git ls-files --cached --others --exclude-standard | xargs grep -lE '^#!/(usr/)?bin/(env )?(ba)?sh')

# A phase says when it starts and how long it took.
phase = @echo; echo "=== $(1)"; $(2); echo "=== $(1): $$SECONDS s"
THIS_MACHINE := INVENTORY=tests/inventory.yml
ENGINE_AND_IMAGES := --tags docker_engine,stack_images

# Four tiers of checks, each with those of the one before. The first needs neither root nor an engine.
UNIT := tests/unit tests/project tests/mutation tests/chaos \
  $(addprefix tests/templates/test_,daemon_json.py stack_file.py) \
  $(addprefix tests/api/test_,config.py flights.py logs.py settings.py)

.PHONY: test-unit
test-unit: $(VENV)/test-ready ## Run the checks that need neither root nor an engine: a minute
	@$(BIN)/pytest -q -m 'not slow' $(UNIT)

# Those without lab machines leave cores idle: as many at a time as there are, each shown once it is done.
WITHOUT_MACHINES := check-lint check-unit check-images check-api check-modules check-templates

.PHONY: test-quick
test-quick: $(VENV)/test-ready ## Run all checks that need no lab machines: ten minutes
	$(call phase,checks without lab machines,$(MAKE) --jobs=$$(nproc) --output-sync $(WITHOUT_MACHINES))

.PHONY: test
test: test-quick ## Run all checks but those that take long, on lab machines that are removed at the end
	$(call phase,scenarios,$(SCENARIOS))

.PHONY: test-long
test-long: LONG := 1
test-long: test ## Run the checks that take long too: long loads, chaos, more kills

.PHONY: $(WITHOUT_MACHINES) engine-and-images
check-lint:
	$(call phase,lint,$(MAKE) lint)

check-unit:
	$(call phase,unit,$(BIN)/pytest -q $(UNIT))

engine-and-images:
	$(call phase,engine and images,$(MAKE) up $(THIS_MACHINE) ARGS='$(ENGINE_AND_IMAGES)')

# Without the files that are checked with the first tier.
IN_UNIT = $(addprefix --ignore=,$(filter %.py,$(UNIT)))

check-images: engine-and-images
	$(call phase,images,$(ROOT_PYTEST) tests/images)

check-api: engine-and-images
	$(call phase,api,$(ROOT_PYTEST) tests/api $(IN_UNIT))

check-modules: engine-and-images
	$(call phase,modules,$(ROOT_PYTEST) tests/modules)

check-templates: engine-and-images
	$(call phase,templates,$(BIN)/pytest -q tests/templates $(IN_UNIT))

.PHONY: test-fast
test-fast:
	@echo 'make test-fast is make test-unit now; make test-quick runs all that needs no lab machines.'; exit 2

# Which scenario: SCENARIO='isolation scaling', all by default. On which machines: MACHINES=debian12.
# LONG=1 with what takes long. SIDE_BY_SIDE=3 sets at a time, else by cores and memory.
SCENARIO ?=
MACHINES ?=
SCENARIOS = $(SUDO_AS_IS) $(BIN)/python -m tests.scenarios $(if $(MACHINES),--machines '$(MACHINES)') $(if $(KEEP),--keep) $(if $(LONG),--long) $(SIDE_BY_SIDE:%=--side-by-side=%) $(SCENARIO)

.PHONY: molecule
molecule: $(VENV)/test-ready ## Check on lab machines: SCENARIO=isolation, MACHINES=debian12, KEEP=1, LONG=1
	@$(MAKE) up $(THIS_MACHINE) ARGS='$(ENGINE_AND_IMAGES)'
	@$(SCENARIOS)

.PHONY: mutate
mutate: $(VENV)/test-ready ## Break each promise on purpose, and see its check fail
	@$(MAKE) up $(THIS_MACHINE)
	@status=0; $(SUDO_AS_IS) $(BIN)/python -m tests.mutation || status=$$?; \
	  $(MAKE) destroy $(THIS_MACHINE) CONFIRM=stackyard-test; exit $$status

.PHONY: chaos
chaos: $(VENV)/verify-ready ## Break the stack at random, under load: CONFIRM=stackyard, DURATION=120, SEED=4711
	@$(BIN)/python -m chaos --inventory=$(INVENTORY) --confirm='$(CONFIRM)' \
	  --duration='$(or $(DURATION),120)' --seed='$(SEED)' --faults='$(FAULTS)' $(SET:%=--set '%')

.PHONY: bench-requests
bench-requests: ## Measure requests through the gateway, against a plain FastAPI app
	@$(MAKE) bench PARTS=requests

.PHONY: bench-fleet
bench-fleet: ## Measure what a further machine costs the controller, on fleets of 1, 2, 4 and 8
	@$(MAKE) bench PARTS=fleet

.PHONY: bench
bench: $(VENV)/ready ## Measure, on bare machines in containers: PARTS='cold unchanged recover images requests'
	@$(MAKE) up $(THIS_MACHINE) ARGS='$(ENGINE_AND_IMAGES)'
	@$(SUDO) $(BIN)/python -m bench $(PARTS)

# Byte-compiled once, so that no start has to: all but the bundled collections that no run imports.
UNUSED_COLLECTIONS := 'ansible_collections/(?!community/(docker|library_inventory_filtering_v1)/)'

# What a run needs. python3-venv is not part of a fresh Debian's python3.
$(VENV)/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Python 3.11 or newer is needed; this is '"$$($(PYTHON) --version)"'. Type: make up PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo 'Installing python3-venv'; $(SUDO) apt-get update -qq; $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; }
	@echo 'Installing Ansible into $(VENV) (10 seconds)'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.txt
	@$(BIN)/python -m compileall -q -j0 -x $(UNUSED_COLLECTIONS) $(VENV)/lib
	@touch $@

# What the acceptance checks need on top of it.
$(VENV)/verify-ready: $(VENV)/ready requirements-verify.txt
	@echo 'Installing pytest and testinfra into $(VENV) (3 seconds)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --compile --require-hashes -r requirements-verify.txt
	@touch $@

# What all other checks need.
$(VENV)/test-ready: $(VENV)/verify-ready requirements-test.txt
	@echo 'Installing the test tools into $(VENV)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --compile --require-hashes -r requirements-test.txt
	@touch $@

.PHONY: lock
lock: ## Pin the newest allowed requirements again, with hashes
	$(PYTHON) -m pip install --quiet uv
	for name in requirements requirements-verify requirements-test; do \
	  uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --custom-compile-command 'make lock' $$name.in -o $$name.txt; done
