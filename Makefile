# Every target sets up the part of the environment that it needs. `make demo` and `make test` are the two that matter.
# PYTHON: the interpreter for the environment, 3.11 or newer. OUT: output folder of `make gpu`.
# TMKT_CUDA=1: also compile the CUDA kernels without a GPU. TMKT_CUDA=0: leave them out even with one.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON := $(or $(PYTHON),$(shell command -v python3.11 || command -v python3))
VENV ?= .venv
OUT ?= build/gpu
RUN := $(VENV)/bin/
export PATH := $(abspath $(VENV))/bin:$(PATH)
SOURCES := $(shell find csrc -type f) CMakeLists.txt setup.py

.PHONY: demo test test-fast check structure docs bench wheel sanitize gpu gpu-pack clean

demo: $(VENV)/.installed
	$(RUN)tmkt demo

# With the rivals, for the tests that compare. Two processes of one thread each on two cores; tests of threads set their
# own number. A file's tests stay together and share their setup; tests/conftest.py says which files come first.
PYTEST := OMP_NUM_THREADS=1 $(RUN)pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: $(VENV)/.rivals
	$(PYTEST)

# Without the marker `slow`: tests that take more than a second each, and interpreted Triton. Under two minutes.
test-fast: $(VENV)/.rivals
	$(PYTEST) -m "not slow"

check: $(VENV)/.tools
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)mypy
	$(RUN)python -m benchmarks.report --check
	$(RUN)clang-format --dry-run --Werror $$(find csrc -type f)

# The structure of the code as a table with limits, and the places that each measure counts. `make test` checks them.
structure: $(VENV)/.tools
	$(RUN)python -m tests.structure

# On two cores, in under ten minutes: one thread, then two. `python -m benchmarks.report` then makes tables and charts.
bench: $(VENV)/.rivals
	$(RUN)python -m benchmarks.run --threads 1
	$(RUN)python -m benchmarks.run --threads 2 --dtype float32

# dist/: the sdist, and the wheel built from it, tagged and audited. The wheel then passes the operator tests outside
# the tree under the oldest torch, one between and the newest. `cibuildwheel` (pyproject.toml) builds release wheels.
wheel: $(VENV)/.tools
	rm -rf dist build/wheel
	TMKT_CUDA_ARCHS=all $(RUN)python -m build --no-isolation --outdir build/wheel
	.ci/repair_wheel.sh build/wheel/*.whl dist
	mv build/wheel/*.tar.gz dist
	tests/wheel.sh $(PYTHON) dist/*.whl

# The documentation, as build/site/index.html; warnings are errors.
docs: $(VENV)/.tools
	$(RUN)mkdocs build --strict

# The CPU loops and the decoders of recorded formats under AddressSanitizer and UndefinedBehaviorSanitizer, and the CUDA
# kernels, emulated on the CPU, under ThreadSanitizer too; needs g++ and a quarter of an hour.
sanitize: $(VENV)/.tools
	tests/sanitize.sh

# On a machine with a GPU: builds in place for the available python3 (ours, if `make test` made one), then runs all
# stages: the GPU tests, all benchmarks, a profile. Needs no network, and no environment of ours.
gpu:
	OUT=$(OUT) benchmarks/gpu.sh build
	OUT=$(OUT) benchmarks/gpu.sh all

# gpu-pack/: all that a bare GPU machine lacks for single stages, `benchmarks/gpu.sh STAGE SECONDS`. Builds nothing.
gpu-pack: $(VENV)/.packages
	$(RUN)python -m benchmarks.pack

# With a GPU, this environment has CUDA kernels for it. Without one it has them only on request, for sm_90, because nvcc
# takes minutes per architecture. Once built, they are kept. Wheels have all architectures.
GPU := $(shell nvidia-smi -L 2>/dev/null)
HAS_CUDA := $(shell grep -s '"cuda": "built' tmkt_kernels/_build_report.json)
ENVIRONMENT := $(addprefix $(VENV)/.,packages installed tools rivals)
ifeq ($(GPU),)
$(ENVIRONMENT): export TMKT_CUDA ?= $(if $(HAS_CUDA),1,0)
$(ENVIRONMENT): export TMKT_CUDA_ARCHS ?= 90
endif
# It has no CPU loops for AVX-512 if the processor cannot run them, because they take a third of the compile time.
$(ENVIRONMENT): export TMKT_AVX512 ?= $(if $(shell grep -sm1 avx512vl /proc/cpuinfo),1,0)
ifeq ($(TMKT_CUDA)$(HAS_CUDA),1)
.PHONY: $(VENV)/.installed # has no CUDA kernels yet
endif

# pip prints a line for each wheel of a megabyte or more, and its errors. Two kinds of harmless warnings are suppressed.
PIP := PYTHONWARNINGS="ignore:Editable installation" $(RUN)pip install --disable-pip-version-check -c constraints.txt
LINES := 2> >(sed -u "/^WARNING: Location .* is ignored/d" >&2) | sed -un 's/^ *\(Downloading\|Using cached\) \([^ ]*\) (\(.* MB\)).*/    \2, \3/p; s/^Installing collected.*/    unpacking/p'

# Torch first and without build isolation, so that the extension compiles against the torch that it runs with.
$(VENV)/.packages: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "the pinned environment needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	@echo "Setting up $(VENV), once: four to six minutes on two cores."
	@echo "1/3 torch, and what the operators are compiled with"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip setuptools wheel $(LINES)
	@$(PIP) torch torchvision cmake ninja pybind11 $(LINES)
	@touch $@

$(VENV)/.installed: $(VENV)/.packages $(SOURCES)
	@echo "2/3 compiling the operators: C++$(if $(filter 0,$(TMKT_CUDA)), alone$(if $(GPU),,, for there is no GPU here), and CUDA where nvcc is)"
	@$(RUN)python setup.py --quiet build_ext --inplace
	@echo "3/3 the trainer and its packages"
	@$(PIP) --no-build-isolation -e ".[train]" $(LINES)
	@$(RUN)python -m tmkt_kernels
	@touch $@

# Packages for tests, checks, docs and wheels.
$(VENV)/.tools: $(VENV)/.installed
	@echo "The packages that test, check and document"
	@$(PIP) --no-build-isolation -e ".[train,test,dev,docs,wheel]" $(LINES)
	@touch $@

# setuptools-scm is for norse, which is installed from source.
$(VENV)/.rivals: $(VENV)/.tools
	@echo "The libraries that tests compare with"
	@$(PIP) setuptools-scm $(LINES)
	@$(PIP) --no-build-isolation -e ".[rivals]" $(LINES)
	@touch $@

clean:
	rm -rf build dist *.egg-info tmkt_kernels/*.so tmkt_kernels/_build_report.json $(VENV)/.installed
