#!/usr/bin/env bash
# `make gpu`: build here, run the GPU tests, compute-sanitizer and all benchmarks; a short table last. Rows and logs go to
# $OUT. Each part has its share of eight minutes. Without a GPU it is a dry run: the same parts on the CPU, with small shapes
# and Triton's interpreter.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu} python=${PYTHON:-python3}
mkdir -p "$out"
status=0

# part NAME SECONDS COMMAND...: its output goes to $out/NAME.log; says how long it took, and why it failed.
part() {
  local name=$1 limit=$2 begin=$SECONDS rc=0
  shift 2
  timeout "$limit" "$@" >"$out/$name.log" 2>&1 || rc=$?
  [ $rc -eq 0 ] || { status=1; tail -n 15 "$out/$name.log"; }
  echo "== $name: $([ $rc -eq 0 ] && echo done || echo "FAILED, exit code $rc") after $((SECONDS - begin)) s (log: $out/$name.log)"
  return $rc
}

"$python" -c 'import torch' || { echo "make gpu: $python has no torch; activate an environment that has"; exit 1; }
gpu=$("$python" -c 'import torch; print(int(torch.cuda.is_available()))')
if [ "$gpu" = 1 ]; then
  # For this GPU alone: it halves the time of the build.
  : "${TMKT_CUDA_ARCHS:=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')}"
  export TMKT_CUDA_ARCHS
fi
part build $([ "$gpu" = 1 ] && echo 150 || echo 1800) "$python" setup.py build_ext --inplace || exit 1
"$python" -m tmkt_kernels | tee "$out/report.txt"
missing=$("$python" -c 'import importlib.util as u; print(*(p for p in ("pytest", "pytest_timeout", "hypothesis", "rich") if not u.find_spec(p)))')
[ -z "$missing" ] || echo "not installed here: $missing"

if [ "$gpu" = 1 ]; then
  workers=$("$python" -c 'import xdist' 2>/dev/null && echo "-n 8")
  TMKT_REQUIRE_CUDA=1 part tests 120 "$python" -m pytest tests/kernels -q -m cuda $workers
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
      part "$tool" 60 compute-sanitizer --tool $tool --error-exitcode 1 "$python" -m benchmarks.smoke --device cuda
    done
  else
    echo "== compute-sanitizer: not installed here, left out"
  fi
  part bench 260 "$python" -m benchmarks.run --device cuda --limit 200 --out "$out/rows.jsonl"
else
  echo "== dry run: no GPU here; the CPU takes its part, with small shapes and Triton's interpreter"
  export TRITON_INTERPRET=1
  part tests 1800 "$python" -m pytest tests/kernels/test_triton.py tests/kernels/test_cuda.py -q
  echo "== compute-sanitizer: needs a GPU; the program it would run:"
  part smoke 900 "$python" -m benchmarks.smoke
  part bench 1800 "$python" -m benchmarks.run --small --rounds 2 --without torch.compile --out "$out/rows.jsonl"
fi
[ -s "$out/rows.jsonl" ] && "$python" -m benchmarks.tables "$out/rows.jsonl"
exit $status
