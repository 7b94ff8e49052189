#!/usr/bin/env bash
# wheel.sh PYTHON WHEEL [PYTEST ARGUMENT ...]: one wheel passes the operator tests unchanged under each torch of $TORCH,
# in separate environments. The tests are copied out of the source tree, so that they test the installed package.
# 2.10.0 is the oldest supported torch; 2.13.0 is the CPU build if pip finds it (--find-links).
set -euo pipefail
python=$1 wheel=$(realpath "$2") here=$(cd "$(dirname "$0")" && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export OMP_NUM_THREADS=1 # one thread per process of pytest, as in the Makefile
export PIP_CONSTRAINT=/dev/null # a limit of this machine on torch must not restrict tests; empty would not lift it
cp -r "$here" "$here/../benchmarks" "$place" # benchmarks: for the tests of the machine code
cd "$place"
for torch in ${TORCH:-torch==2.10.0 torch==2.13.0 torch}; do
  "$python" -m venv --clear venv
  numpy=numpy
  if [ "$torch" = torch==2.10.0 ]; then numpy="numpy<2.4"; fi # the interpreter of its Triton 3.6 fails with newer NumPy
  venv/bin/pip install --quiet "$torch" "$numpy"
  venv/bin/pip install --quiet "$wheel[test]"
  venv/bin/python -m tmkt_kernels
  venv/bin/pytest -q -c /dev/null --rootdir tests -o pythonpath="$place $place/tests" --import-mode=importlib -p no:cacheprovider \
    --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder tests/kernels "${@:3}"
done
