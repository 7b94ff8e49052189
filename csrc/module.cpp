// The SIMD level in use and the build's properties, for `python -m tmkt_kernels` and the benchmark rows.
#include <cstdlib>
#include <string>

#include "common/simd.h"

#ifndef TMKT_CUDA_VERSION
#define TMKT_CUDA_VERSION ""
#define TMKT_CUDA_ARCHS ""
#define TMKT_CUDA_PTX ""
#endif

namespace tmkt {
namespace {

SimdLevel best_level() {
#ifdef TMKT_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#ifdef TMKT_AVX512
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return SimdLevel::kAvx512;
#endif
  if (avx2) return SimdLevel::kAvx2;
#endif
  return SimdLevel::kBaseline;
}

}  // namespace

const char* simd_name(SimdLevel level) {
  return level == SimdLevel::kAvx512 ? "avx512" : level == SimdLevel::kAvx2 ? "avx2" : "baseline";
}

SimdLevel simd_level() {
  static const SimdLevel chosen = [] {
    const SimdLevel best = best_level();
    const char* wanted = std::getenv("TMKT_SIMD");  // extension.py raises for an unknown or unavailable level
    for (SimdLevel level : {SimdLevel::kBaseline, SimdLevel::kAvx2}) {
      if (wanted && std::string(wanted) == simd_name(level) && level < best) return level;
    }
    return best;
  }();
  return chosen;
}

}  // namespace tmkt

// JSON, valid for the lifetime of the process. `cuda` is empty if no CUDA kernel was compiled.
extern "C" __attribute__((visibility("default"))) const char* tmkt_build_info() {
  static const std::string info = [] {
#if defined(TMKT_AVX512)
    const std::string levels = R"(["baseline", "avx2", "avx512"])";
#elif defined(TMKT_X86)
    const std::string levels = R"(["baseline", "avx2"])";
#else
    const std::string levels = R"(["baseline"])";
#endif
    return R"({"compiler": ")" __VERSION__ R"(", "simd": ")" + std::string(tmkt::simd_name(tmkt::simd_level())) +
           R"(", "simd_levels": )" + levels +
           R"(, "cuda": ")" TMKT_CUDA_VERSION R"(", "cuda_archs": ")" TMKT_CUDA_ARCHS
           R"(", "cuda_ptx": ")" TMKT_CUDA_PTX R"("})";
  }();
  return info.c_str();
}
