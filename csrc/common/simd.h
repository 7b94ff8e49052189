// Run-time choice of the SIMD level. Files named *_simd.cpp are compiled once per level, with TMKT_SIMD set to
// the level's name, so that namespace tmkt::TMKT_SIMD exists once per level.
#pragma once

namespace tmkt {

enum class SimdLevel { kBaseline, kAvx2, kAvx512 };

const char* simd_name(SimdLevel level);

// The best level of this CPU that the library was compiled for. TMKT_SIMD=baseline|avx2 in the environment lowers it,
// for tests and measurements.
SimdLevel simd_level();

}  // namespace tmkt

// TMKT_DECLARE_SIMD declares `signature` at every level, and TMKT_PICK_SIMD returns the function of the current level.
#ifdef TMKT_X86
#define TMKT_DECLARE_SIMD(signature) \
  namespace baseline {               \
  signature;                         \
  }                                  \
  namespace avx2 {                   \
  signature;                         \
  }                                  \
  namespace avx512 {                 \
  signature;                         \
  }
#ifdef TMKT_AVX512
#define TMKT_PICK_SIMD(function)                         \
  (simd_level() == SimdLevel::kAvx512 ? avx512::function \
   : simd_level() == SimdLevel::kAvx2 ? avx2::function   \
                                      : baseline::function)
#else
#define TMKT_PICK_SIMD(function) (simd_level() == SimdLevel::kAvx2 ? avx2::function : baseline::function)
#endif
#else
#define TMKT_DECLARE_SIMD(signature) \
  namespace baseline {               \
  signature;                         \
  }
#define TMKT_PICK_SIMD(function) (baseline::function)
#endif
