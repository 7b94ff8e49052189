# Every target sets up the environment that it needs. `make demo` and `make test` are the two that matter.
# PYTHON: the interpreter to build the environment from, 3.11 or newer. OUT: where `make gpu` writes.
PYTHON := $(or $(PYTHON),$(shell command -v python3.11 || command -v python3))
VENV ?= .venv
OUT ?= build/gpu
RUN := $(VENV)/bin/
export PATH := $(abspath $(VENV))/bin:$(PATH)
SOURCES := $(shell find csrc -type f) CMakeLists.txt setup.py

.PHONY: demo test check docs bench wheel sanitize gpu gpu-pack clean

demo: $(VENV)/.installed
	$(RUN)tmkt demo

# Rivals too, for the tests that compare. Two processes of one thread each, where there are two cores; what is about
# threads asks for its own. A file's tests stay together, so that what they share is made once.
test: $(VENV)/.rivals
	OMP_NUM_THREADS=1 $(RUN)pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(VENV)/.installed
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)mypy
	$(RUN)python -m benchmarks.report --check
	$(RUN)clang-format --dry-run --Werror $$(find csrc -type f)

# Two cores, under ten minutes: one thread, then two. `python -m benchmarks.report` then makes tables and charts.
bench: $(VENV)/.rivals
	$(RUN)python -m benchmarks.run --threads 1
	$(RUN)python -m benchmarks.run --threads 2 --dtype float32

# dist/: the sdist, and the wheel built from it, tagged and audited. It then passes the operator tests from outside the
# tree under the oldest torch, one between and the newest. `cibuildwheel` (pyproject.toml) builds those of a release.
wheel: $(VENV)/.installed
	rm -rf dist build/wheel
	$(RUN)python -m build --no-isolation --outdir build/wheel
	.ci/repair_wheel.sh build/wheel/*.whl dist
	mv build/wheel/*.tar.gz dist
	tests/wheel.sh $(PYTHON) dist/*.whl

# The documentation, as build/site/index.html; a warning is an error.
docs: $(VENV)/.installed
	$(RUN)mkdocs build --strict

# The CPU loops and the decoders of recorded formats under AddressSanitizer and UndefinedBehaviorSanitizer, and the CUDA
# kernels, emulated on the CPU, under ThreadSanitizer too; needs g++ and a quarter of an hour.
sanitize: $(VENV)/.installed
	tests/sanitize.sh

# On a machine with a GPU: builds in place for the python3 at hand (ours, if `make test` made one), then all stages: the GPU
# tests, all benchmarks, a profile. Needs no network, and no environment of ours.
gpu:
	OUT=$(OUT) benchmarks/gpu.sh build
	OUT=$(OUT) benchmarks/gpu.sh all

# gpu-pack/: what a bare GPU machine lacks for single stages, `benchmarks/gpu.sh STAGE SECONDS`. Builds nothing.
gpu-pack: $(VENV)/.packages
	$(RUN)python -m benchmarks.pack

# This environment has kernels for the GPUs at hand alone, or for sm_90: nvcc takes minutes for each architecture, and CI
# has half an hour on two cores. Wheels and `pip install .` have all.
GPUS = $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | grep -x '[0-9]*' | sort -u | paste -sd ';')
$(VENV)/.installed $(VENV)/.rivals: export TMKT_CUDA_ARCHS ?= $(or $(GPUS),90)

# Torch first and without build isolation: the extension then compiles against the very torch that it runs with.
# setuptools-scm is for norse, which comes as source.
$(VENV)/.packages: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "the pinned environment needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN)pip install --quiet --upgrade pip setuptools wheel -c constraints.txt
	$(RUN)pip install --quiet -c constraints.txt torch torchvision build cmake ninja pybind11 setuptools-scm
	touch $@

$(VENV)/.installed: $(VENV)/.packages $(SOURCES)
	$(RUN)pip install --quiet -c constraints.txt --no-build-isolation -e ".[train,test,dev,docs,wheel]"
	$(RUN)python -m tmkt_kernels
	touch $@

$(VENV)/.rivals: $(VENV)/.installed
	$(RUN)pip install --quiet -c constraints.txt --no-build-isolation -e ".[rivals]"
	touch $@

clean:
	rm -rf build dist *.egg-info tmkt_kernels/*.so tmkt_kernels/_build_report.json
