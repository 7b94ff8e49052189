#!/usr/bin/env bash
# Compiles the CPU loops for each SIMD level that this CPU has, with AddressSanitizer and UndefinedBehaviorSanitizer, and
# runs them on odd and even sizes. Then runs the decoders of recordings on damaged ones, and the CUDA kernels, emulated
# on the CPU (emulator/README.md). Stops at the first finding.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/sanitize
flags=(-std=c++20 -O1 -g -ffp-contract=off -fno-trapping-math -fno-math-errno -Icsrc -w
  -fsanitize=address,undefined -fno-sanitize-recover=all)
sources=(tests/csrc/sanitize.cpp csrc/lif/lif_simd.cpp csrc/bn_lif/{bn_lif,bn_planes,statistics}_simd.cpp csrc/{mixup/mixup,camera/camera}_simd.cpp)
levels=(baseline)
if grep -q avx2 /proc/cpuinfo; then levels+=(avx2); fi
if grep -q avx512vl /proc/cpuinfo; then levels+=(avx512); fi
for level in "${levels[@]}"; do
  case $level in
    baseline) target=() ;;
    avx2) target=(-mavx2 -mfma -mf16c) ;;
    avx512) target=(-march=x86-64-v4 -mprefer-vector-width=512) ;;
  esac
  compile=("${CXX:-g++}" "${flags[@]}" "${target[@]}" -DTMKT_X86=1 -DTMKT_SIMD="$level" -DTMKT_LEVEL="\"$level\"")
  jobs=() objects=()
  for source in "${sources[@]}"; do
    objects+=("build/sanitize/$level-$(basename "$source" .cpp).o")
    "${compile[@]}" -c "$source" -o "${objects[-1]}" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job"; done
  "${compile[@]}" "${objects[@]}" -o "build/sanitize/$level"
  "build/sanitize/$level"
done

# The decoders of recorded formats, on random and damaged records.
"${CXX:-g++}" "${flags[@]}" -fsanitize=float-cast-overflow \
  tests/csrc/fuzz_events.cpp csrc/events/{bin,prophesee,aedat}.cpp -o build/sanitize/fuzz_events
build/sanitize/fuzz_events 20000

# Random calls of torch's operators against the reference. ThreadSanitizer knows each CUDA thread as a separate thread,
# which only barriers order. Python has to load the sanitizers' libraries first, and its own leaks do not matter here.
export OMP_NUM_THREADS=1 PYTHONPATH=. ASAN_OPTIONS=detect_leaks=0
runtime() { "${CXX:-g++}" -print-file-name="lib$1.so"; }
stress() {  # kind, number of cases, runtime libraries
  local kind=$1 cases=$2 library seed digests=()
  library=$(python tests/emulator/build.py operators "$kind")
  for seed in 1 2; do
    digests+=("$(LD_PRELOAD="${*:3}" TMKT_LIBRARY=$library TMKT_EMULATOR_SEED=$seed \
      python tests/emulator/stress.py --cases "$cases")")
  done
  echo "emulated CUDA kernels, $kind: ${digests[0]}"
  [ "${digests[0]}" = "${digests[1]}" ] || { echo "another order of the threads gave other bits"; exit 1; }
}
stress address 150 "$(runtime asan)" "$(runtime ubsan)"
stress thread 60 "$(runtime tsan)"
