// Run-time choice of the SIMD level. Files named *_simd.cpp are compiled once per level, with TMKT_SIMD set to
// the level's name: what they define in namespace tmkt::TMKT_SIMD is then there once per level.
#pragma once

namespace tmkt {

enum class SimdLevel { kBaseline, kAvx2, kAvx512 };

const char* simd_name(SimdLevel level);

// The best level that this CPU has and the library was compiled for. TMKT_SIMD=baseline|avx2 lowers it, for tests and
// measurements.
SimdLevel simd_level();

}  // namespace tmkt

// Declares `signature` at every level, and picks one of them by the level at hand.
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
