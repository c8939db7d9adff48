# `make demo` and `make test` are all that a fresh machine needs: they create the environment first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STORE  ?=
# The CPU build where the index offers one; a CUDA build of the same version elsewhere. The rest is locked by hash.
TORCH  := torch==2.13.0
PACKAGES := cli components flows infra registry
# Processes that share the tests, a file at a time; tests/conftest.py puts the files that take long first.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest
SHARED := $(PYTEST) --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# torch and the CUDA libraries that only its Linux build names: their files differ between indexes, so no hash fits all.
UNLOCKED := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
  nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
  nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

.PHONY: help setup demo serve test test-quick test-s3 test-kernels test-curvlinops coverage dist docs lint format lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/.installed ## create .venv and install the locked dependencies

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Oubli needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@# Some seconds, now in place of in the first selection.
	$(BIN)/python -m oubli.components.lfoci.warming
	touch $@

demo: setup ## train, remove 25 samples, compare with retraining (STORE=s3://bucket/prefix for S3)
	$(if $(STORE),OUBLI_STORE=$(STORE)) $(BIN)/oubli demo

serve: setup ## MLflow and Prefect UIs on the local store
	$(BIN)/oubli serve

test: setup ## every test that needs no outside service (WORKERS=n processes, 2 by default)
	$(SHARED) -m "not s3"

test-quick: setup ## those that are neither slow nor end to end
	$(SHARED) -m "not s3 and not slow and not e2e"

test-s3: setup ## the tests marked s3; the server is named by the environment (tests/README.md)
	$(SHARED) -m s3

test-curvlinops: setup ## our K-FAC and EK-FAC against the library curvlinops
	@# Without its dependency torchvision, which it needs for nothing that is called, and which would change torch.
	test -d build/curvlinops || $(BIN)/python -m pip install --quiet --no-deps --target build/curvlinops \
	  curvlinops-for-pytorch==3.0.1 backpack-for-pytorch==1.7.1 einconv==0.1.0 einops==0.8.2 jaxtyping==0.3.11 \
	  linear-operator==0.6.1 opt-einsum==3.4.0 unfoldNd==0.2.3
	PYTHONPATH=build/curvlinops $(PYTEST) tests/components/curvature/test_kfac.py

test-kernels: setup ## the GPU kernels, compiled and run by Triton's interpreter; no GPU needed
	@# The version that torch's CUDA build brings; kept out of the environment, as it is large.
	test -d build/triton || $(BIN)/python -m pip install --quiet --no-deps --target build/triton triton==3.7.1
	PYTHONPATH=build/triton $(PYTEST) tests/components/lfoci/engines/test_cuda.py

coverage: setup ## lines that the tests run: a table, and pages in build/coverage/html
	$(SHARED) -m "not s3" --cov --cov-report term --cov-report html

dist: setup ## build the wheel and the sdist into dist/, and try the wheel in an empty environment (DEMO=1: with the demo)
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	PYTHON=$(PYTHON) TORCH='$(TORCH)' .ci/check-wheel $(if $(DEMO),--demo)

docs: setup ## build the documentation into build/docs; a warning is an error
	@# The group `docs` of pyproject.toml names every package that Sphinx needs beside the locked ones. A fresh start
	@# each time: pages show what the code says, and Sphinx does not know when that changed.
	$(BIN)/python -m pip install --quiet --no-deps $$($(BIN)/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["docs"])')
	$(BIN)/python docs/architecture.py --check
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet -d build/docs-doctrees -b html docs build/docs
	@echo "build/docs/index.html"

lint: setup ## ruff and strict mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# mypy reads sources, not the editable install's finder: show it the mapped packages as folders.
	@mkdir -p build/mypy/oubli && for p in $(PACKAGES); do ln -sfn ../../../$$p build/mypy/oubli/$$p; done
	@ln -sfn ../../../oubli/__init__.py build/mypy/oubli/__init__.py
	MYPYPATH=build/mypy $(BIN)/mypy

format: setup ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## resolve requirements.lock anew
	test -x build/lock/bin/uv || { $(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet uv; }
	build/lock/bin/uv pip compile pyproject.toml --extra demo --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --custom-compile-command "make lock" \
	  $(addprefix --no-emit-package ,$(UNLOCKED)) --quiet --output-file requirements.lock

clean: ## remove the environment and everything the demo made
	rm -rf $(VENV) .oubli build dist *.egg-info
