#!/usr/bin/env bash
# `make gpu`: build here, run the GPU tests and all benchmarks, print a short table last. Rows and logs go to $OUT.
# Without a GPU it is a dry run: the same build, the CPU tests, the CPU benchmark at small shapes.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu} python=${PYTHON:-python3}
mkdir -p "$out"
"$python" -c 'import torch' || { echo "make gpu: $python has no torch; activate an environment that has"; exit 1; }

echo "== build (log: $out/build.log)"
"$python" setup.py build_ext --inplace >"$out/build.log" 2>&1 || { tail -n 30 "$out/build.log"; exit 1; }
"$python" -m tmkt_kernels | tee "$out/report.txt"

status=0
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "== GPU tests (log: $out/tests.log)"
  TMKT_REQUIRE_CUDA=1 "$python" -m pytest tests/kernels -q -k "cuda" >"$out/tests.log" 2>&1 || status=1
  tail -n 15 "$out/tests.log"
  echo "== benchmarks (log: $out/bench.log)"
  "$python" -m benchmarks.run --device cuda --out "$out/rows.jsonl" >"$out/bench.log" 2>&1 || status=1
else
  echo "== dry run: no GPU here. Operator tests on the CPU (log: $out/tests.log)"
  "$python" -m pytest tests/kernels -q >"$out/tests.log" 2>&1 || status=1
  tail -n 5 "$out/tests.log"
  echo "== benchmarks at small shapes on the CPU (log: $out/bench.log)"
  "$python" -m benchmarks.run --device cpu --small --out "$out/rows.jsonl" >"$out/bench.log" 2>&1 || status=1
fi
tail -n 40 "$out/bench.log"
exit $status
