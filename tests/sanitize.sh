#!/usr/bin/env bash
# Compiles the CPU loops for each SIMD level that this CPU has, with AddressSanitizer and UndefinedBehaviorSanitizer, and
# runs them on odd and even sizes. Stops at the first finding.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/sanitize
flags=(-std=c++17 -O1 -g -ffp-contract=off -fno-trapping-math -fno-math-errno -Icsrc -w
  -fsanitize=address,undefined -fno-sanitize-recover=all)
sources=(tests/csrc/sanitize.cpp csrc/lif/lif_simd.cpp csrc/bn_lif/bn_{lif,planes}_simd.cpp csrc/mixup/mixup_simd.cpp)
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
