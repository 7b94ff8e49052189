#!/usr/bin/env bash
# GPU work in stages, each with a time limit: benchmarks/gpu.sh STAGE [SECONDS] [--dry] [-- OPTION...]
#   build    the library, for the GPU at hand (not where gpu-pack/ brings one)
#   check    the GPU tests on all cores; beside them memcheck, racecheck and initcheck of compute-sanitizer (180 s)
#   warm     compile what `bench` and `models` run, on all cores (170 s)
#   bench    the operators with the rivals; ours first where these are not compiled yet (180 s)
#   models   training steps and inference of whole networks (240 s)
#   profile  bytes, throughput and stalls of the main kernels, by ncu (120 s)
#   all      check, bench, models, profile
# Rows and logs are written to $OUT (build/gpu) at once, so that a stage cut short keeps them. Without a GPU, or with
# --dry, a stage runs the same programs on the CPU, with small shapes. Options go to benchmarks.run, for example
# --without "tmkt native". If gpu-pack/ (make gpu-pack) is in the tree, the library and missing wheels come from
# it. Needs no network, and no environment of ours; $PYTHON is python3.
set -uo pipefail
cd "$(dirname "$0")/.."
usage() { sed -n '2,/^set/s/^# //p' "$0"; echo "gpu.sh: $1"; exit 2; }

declare -A default=([build]=1800 [check]=180 [warm]=170 [bench]=180 [models]=240 [profile]=120)
dry='' words=() options=()
while [ $# -gt 0 ]; do
  case $1 in --dry) dry=1 ;; --) shift; options=("$@"); break ;; *) words+=("$1") ;; esac
  shift
done
[ ${#words[@]} -ge 1 ] && [ ${#words[@]} -le 2 ] || usage "expected a stage and its seconds, got: ${words[*]:-nothing}"
stage=${words[0]} given=${words[1]:-}
[ "$stage" = all ] || [ -n "${default[$stage]:-}" ] || usage "expected a stage, got '$stage'"
[[ "$given" =~ ^([1-9][0-9]*)?$ ]] || usage "expected whole seconds, got '$given'"
nvidia-smi -L >/dev/null 2>&1 || dry=1

out=${OUT:-build/gpu} python=${PYTHON:-python3} pack=gpu-pack
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
cache=${TMKT_CACHE:-${TMPDIR:-/tmp}/tmkt-gpu-$(id -u)} # of compiled code and unpacked wheels; outlives a stage
export TRITON_CACHE_DIR=$cache/code/triton
device=$([ $dry ] && echo cpu || echo cuda)
cores=$(nproc) status=0
mkdir -p "$out" "$cache/code"

# The library is linked, not copied, so that it is always the pack's.
if [ -e $pack/libtmkt_kernels.so ]; then
  [ -e tmkt_kernels/libtmkt_kernels.so ] || ln -sf ../$pack/libtmkt_kernels.so tmkt_kernels/
  TMKT_COMMIT=$(cat $pack/commit)
  export TMKT_COMMIT
fi

# report NAME LOG CODE SECONDS: how a part ended, and the end of its log if it did not end well.
report() {
  local how="FAILED, exit code $3"
  case $3 in 0) how=done ;; 124 | 137) how="CUT SHORT at its limit" ;; esac
  [ "$3" -eq 0 ] || { status=1; tail -n 25 "$2"; }
  echo "== $1: $how after $4 s (log: $2)"
}

left() { echo $((deadline - SECONDS)); }

# part NAME LOG MOST COMMAND...: for MOST seconds at most, and no longer than the stage has; appends to $out/LOG.
part() {
  local name=$1 log=$out/$2 limit=$(($3 < $(left) ? $3 : $(left))) begin=$SECONDS rc=0
  shift 3
  [ "$limit" -gt 0 ] || { echo "== $name: left out, the stage's time is over"; status=1; return 1; }
  echo "== $name" >>"$log"
  timeout --signal INT --kill-after 3 $((limit > 6 ? limit - 3 : limit)) "$@" >>"$log" 2>&1 || rc=$?
  report "$name" "$log" $rc $((SECONDS - begin))
  return $rc
}

# Wheels of the rivals, once per machine.
wheels() {
  [ -d $pack/wheels ] || return 0
  if [ ! -e "$cache/site/.complete" ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$cache/site" \
      $pack/wheels/*.whl && touch "$cache/site/.complete" || { echo "gpu.sh: the wheels do not install"; exit 1; }
  fi
  export PYTHONPATH="$PYTHONPATH:$cache/site"
}

stage_build() {
  # Only for this GPU, which halves the build time.
  [ $dry ] || [ -n "${TMKT_CUDA_ARCHS:-}" ] ||
    TMKT_CUDA_ARCHS=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
  export TMKT_CUDA_ARCHS
  part build build.log 1800 "$python" setup.py build_ext --inplace
}

# In the background; each line in sanitizers.log begins with the tool's name. The smoke program allocates each tensor
# separately, so that memcheck sees the first byte beyond it.
sanitize() {
  local tool=$1 backend=$2 log=$out/sanitizers.log begin=$SECONDS rc=0
  local command=("$python" -m benchmarks.smoke --device $device --backend "$backend")
  [ "$tool" = none ] || [ $dry ] || command=(compute-sanitizer --tool "$tool" --error-exitcode 1 "${command[@]}")
  [ "$(left)" -gt 10 ] || { echo "== $tool, $backend: left out, the stage's time is over"; return 0; }
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout --kill-after 5 $(($(left) - 5)) "${command[@]}" \
    > >(sed -u "s/^/$tool, $backend: /" >>"$log") 2>&1 || rc=$?
  report "$tool, $backend" "$log" $rc $((SECONDS - begin))
  return $rc
}

stage_check() {
  local tool job jobs=()
  export OMP_NUM_THREADS=1 TORCHINDUCTOR_COMPILE_THREADS=1
  [ $dry ] && export TRITON_INTERPRET=1 || export TMKT_REQUIRE=cuda
  (facts=$("$python" -m tmkt_kernels 2>&1); echo "$facts" >>"$out/tests.log") & jobs+=($!)
  if [ $dry ]; then
    sanitize none native & jobs+=($!)
  elif command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck; do sanitize $tool native & jobs+=($!); done
    # Compiled without the tool first, because under it that would take minutes.
    (sanitize none triton && sanitize memcheck triton && sanitize racecheck triton) & jobs+=($!)
  else
    echo "== compute-sanitizer: not installed here, left out"
  fi
  part tests tests.log 1800 "$python" -m pytest tests/kernels -m cuda -v --tb=short -rf --maxfail 60 --durations 10 --durations-min 2 \
    -p no:cacheprovider --numprocesses $((cores > 2 ? cores - 2 : cores)) --dist worksteal
  for job in "${jobs[@]}"; do wait "$job" || status=1; done
  tail -n 1 "$out/tests.log"
}

# compile NAME PROCESSES THREADS MORE...: into the cache, once per machine. Each process compiles with THREADS threads.
compile() {
  local name=$1 processes=$2 threads=$3
  shift 3
  [ ! -e "$cache/$name" ] || return 0
  TORCHINDUCTOR_COMPILE_THREADS=$threads part "compile $name" warm.log 120 "$python" -m benchmarks.run --device $device \
    --cache "$cache/code" --warm "$processes" "$@" "${options[@]}" && touch "$cache/$name"
}

# Few enough processes for all their tensors to fit on the GPU at once.
compile_operators() { compile operators $((cores < 10 ? cores : 10)) 1 --models without --sweeps without $(small); }

# Networks that run unchanged are left out, because they compile their few kernels in no time.
compile_models() { [ $dry ] || compile models 4 4 --models only --case "training step" "${slow[@]/#/--only=}"; }
slow=(torch.compile "SpikingJelly compiled")

run() { # LOG MORE...: rows of the requested cases; none begins in the stage's last seconds
  local log=$1
  shift
  part "run $*" "$log" 1800 "$python" -m benchmarks.run --device $device --cache "$cache/code" --out "$out/rows.jsonl" \
    --append --limit $(($(left) > 20 ? $(left) - 15 : $(left))) "$@" "${options[@]}"
}

# Options of a dry run: tiny shapes, and no compilation.
small() { [ ! $dry ] || echo --dry --rounds 2 --without torch.compile; }

stage_warm() {
  wheels
  compile_operators
  compile_models
}

stage_bench() {
  wheels
  if [ ! -e "$cache/operators" ]; then # of ours, only Triton compiles
    run bench.log --models without --sweeps without --ours $(small)
    compile_operators
  fi
  run bench.log --models without --sweeps without $(small)
  [ "$(left)" -lt 30 ] || run bench.log --models without --sweeps only $(small)
  [ ! -s "$out/rows.jsonl" ] || "$python" -m benchmarks.tables "$out/rows.jsonl"
}

stage_models() {
  wheels
  local beside=("tmkt native" "tmkt accelerate" SpikingJelly)
  run models.log --models only --rounds 5 "${slow[@]/#/--without=}" $(small)
  [ ! $dry ] || return 0
  # Compiling a whole network takes longest, so it comes last, and only for training steps.
  compile_models
  run models.log --models only --case "training step" --rounds 5 "${beside[@]/#/--only=}" "${slow[@]/#/--only=}"
}

# ncu writes when its program ends, so each backend has a share of the time and ends by itself within it.
stage_profile() {
  local backend seconds
  [ $dry ] || command -v ncu >/dev/null || { echo "== profile: ncu is not installed here"; status=1; return; }
  for backend in native $([ $dry ] || echo triton); do
    seconds=$(($(left) / ($([ $backend = native ] && echo 2 || echo 1)) - 20))
    [ $seconds -gt 0 ] || { echo "== profile, $backend: left out, the stage's time is over"; status=1; continue; }
    part "profile, $backend" profile.log 1800 sh -c "$python -m benchmarks.kernels ncu $backend --device $device \
      --seconds $seconds $([ ! $dry ] || echo --small) >>'$out/profile.csv'"
  done
  [ ! -s "$out/profile.csv" ] || "$python" -m benchmarks.kernels table "$out/profile.csv" | tee -a "$out/profile.log"
}

[ -z "$("$python" -c 'import importlib.util as u; print(*[] if u.find_spec("torch") else [1])')" ] ||
  { echo "gpu.sh: $python has no torch; activate an environment that has, or set PYTHON"; exit 1; }
missing=$("$python" -c 'import importlib.util as u; print(*(p for p in ("pytest", "pytest_timeout", "xdist", "hypothesis", "rich") if not u.find_spec(p)))')
[ -z "$missing" ] || { echo "gpu.sh: $python lacks $missing"; exit 1; }
[ ! $dry ] || echo "== dry run: the CPU takes the GPU's part, with small shapes"
for name in $([ "$stage" = all ] && echo check bench models profile || echo "$stage"); do
  deadline=$((SECONDS + ${given:-${default[$name]}}))
  begin=$SECONDS
  ("stage_$name"; exit $status) || status=1 # a subshell, because a stage exports variables
  echo "== stage $name: $((SECONDS - begin)) s"
done
exit $status
