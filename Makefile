# Every verb that people type. make help lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

ENV ?= prod
INVENTORY ?= inventory/hosts.yml
# More for ansible-playbook: make up ARGS='-e stack_compose_api_replicas=4 --limit lab1'
ARGS ?=

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
PLAY := $(BIN)/ansible-playbook -i $(INVENTORY)

.PHONY: help
help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  ENV=dev or prod (default), INVENTORY=path, ARGS=more for ansible-playbook'

.PHONY: up
up: $(VENV)/ready ## Turn the lab machines into ones with a healthy stack
	$(PLAY) site.yml -e env=$(ENV) $(ARGS)

.PHONY: check
check: $(VENV)/ready ## Show what up would change, and change nothing
	$(PLAY) site.yml -e env=$(ENV) --check --diff $(ARGS)

.PHONY: down
down: $(VENV)/ready ## Stop the stack and keep its data
	$(PLAY) playbooks/down.yml $(ARGS)

.PHONY: destroy
destroy: $(VENV)/ready ## Remove the stack and its data: CONFIRM=stackyard
	$(PLAY) playbooks/destroy.yml -e confirm=$(CONFIRM) $(ARGS)

# What a run needs. python3-venv is not part of a fresh Debian's python3.
$(VENV)/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Python 3.11 or newer is needed; this is '"$$($(PYTHON) --version)"'. Type: make up PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo 'Installing python3-venv'; $(SUDO) apt-get update -qq; $(SUDO) apt-get install -y -qq python3-venv >/dev/null; }
	@echo 'Installing Ansible into $(VENV) (half a minute)'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --compile --require-hashes -r requirements.txt
	@touch $@

# What the checks need on top of it.
$(VENV)/test-ready: $(VENV)/ready requirements-test.txt
	@echo 'Installing the checks into $(VENV)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --compile --require-hashes -r requirements-test.txt
	@touch $@

.PHONY: lock
lock: ## Pin the newest allowed requirements again, with hashes
	$(PYTHON) -m pip install --quiet uv
	for name in requirements requirements-test; do \
	  uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --custom-compile-command 'make lock' $$name.in -o $$name.txt; done
