// Loads and stores of a row of elements as floats, for *_simd.cpp files.
#pragma once

#include "common/numeric.h"
#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace tmkt {
namespace TMKT_SIMD {

TMKT_INLINE float to_float(float x) { return x; }
TMKT_INLINE float to_float(uint8_t x) { return static_cast<float>(x); }
TMKT_INLINE float to_float(int16_t x) { return static_cast<float>(x); }
TMKT_INLINE float to_float(BFloat16 x) { return bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
TMKT_INLINE float to_float(Float16 x) {
#ifdef __F16C__
  return _cvtsh_ss(x.bits);
#else
  // Shift exponent and mantissa into place, then rescale: exact for subnormals too. Infinity and NaN are put back.
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  const float scaled = bit_cast<float>(magnitude) * bit_cast<float>(0x77800000u);  // 2^112
  const uint32_t finite = bit_cast<uint32_t>(scaled);
  const uint32_t bits = magnitude >= 0x0f800000u ? (magnitude | 0x7f800000u) : finite;
  return bit_cast<float>(bits | static_cast<uint32_t>(x.bits & 0x8000) << 16);
#endif
}

TMKT_INLINE void from_float(float x, float* out) { *out = x; }
TMKT_INLINE void from_float(float x, BFloat16* out) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  out->bits = static_cast<uint16_t>(x != x ? 0x7fc0u : rounded);
}
TMKT_INLINE void from_float(float x, Float16* out) {
#ifdef __F16C__
  out->bits = _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
#else
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // subnormal in half: the float adder rounds for us
    half = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  }
  out->bits = static_cast<uint16_t>(half | (bits >> 16 & 0x8000u));
#endif
}

// A row of `width` elements as floats. Plain loops vectorise; half precision needs the conversion instructions.
template <typename T>
TMKT_INLINE void load_row(const T* source, float* row, int64_t width) {
  for (int64_t j = 0; j < width; ++j) row[j] = to_float(source[j]);
}

template <typename T>
TMKT_INLINE void store_row(const float* row, T* target, int64_t width) {
  for (int64_t j = 0; j < width; ++j) from_float(row[j], target + j);
}

#ifdef __F16C__
TMKT_INLINE void load_row(const Float16* source, float* row, int64_t width) {
  int64_t j = 0;
  for (; j + 8 <= width; j += 8) {
    _mm256_storeu_ps(row + j, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source + j))));
  }
  for (; j < width; ++j) row[j] = to_float(source[j]);
}

TMKT_INLINE void store_row(const float* row, Float16* target, int64_t width) {
  int64_t j = 0;
  for (; j + 8 <= width; j += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target + j),
                     _mm256_cvtps_ph(_mm256_loadu_ps(row + j), _MM_FROUND_TO_NEAREST_INT));
  }
  for (; j < width; ++j) from_float(row[j], target + j);
}
#endif

// Writes a 64-byte aligned row past the caches: no read for ownership, a third of the traffic of a large output.
template <typename T>
TMKT_INLINE void stream_row(const T* __restrict row, T* __restrict target, int64_t width) {
#ifdef __SSE2__
  constexpr int64_t kStep = 16 / sizeof(T);
  for (int64_t j = 0; j < width; j += kStep) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(target + j), _mm_load_si128(reinterpret_cast<const __m128i*>(row + j)));
  }
#else
  for (int64_t j = 0; j < width; ++j) target[j] = row[j];
#endif
}

// Streamed stores are weakly ordered: other threads may see them after this.
TMKT_INLINE void end_stream() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
