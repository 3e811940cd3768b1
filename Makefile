# Two commands do all set-up on a fresh machine: make demo, make test.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Byte code is kept: without it each of the many processes of a test run compiles PyTorch's sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint lock clean

demo: $(READY)
	$(BIN)/sapatchcore demo --output demo

test: $(READY)
	$(BIN)/pytest --numprocesses 3 --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# requirements.txt pins every package with its hash; the package itself comes from this folder.
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $(READY)

# Bring the pins up to date with what pyproject.toml allows.
lock: $(READY)
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --no-emit-index-url --no-header \
		--group dev --all-extras --output-file requirements.txt pyproject.toml

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache demo results
