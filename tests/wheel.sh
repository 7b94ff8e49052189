#!/usr/bin/env bash
# wheel.sh PYTHON WHEEL: a second environment with torch 2.13.0 (CPU build) passes the operator tests unchanged,
# run from a copy outside the source tree so that the installed package is what is tested.
set -euo pipefail
python=$1 wheel=$(realpath "$2") here=$(cd "$(dirname "$0")" && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$python" -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$place/venv/bin/pip" install --quiet "$wheel[test]"
cp -r "$here" "$place/tests"
cd "$place"
venv/bin/python -m tmkt_kernels
venv/bin/pytest -q -c /dev/null --rootdir tests --import-mode=importlib -p no:cacheprovider tests/kernels "${@:3}"
