// One register of floats and its loads and stores in every dtype.
#pragma once

#include <type_traits>

#include "common/numeric.h"
#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace tmkt {
namespace TMKT_SIMD {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// Compiler vectors: arithmetic, comparison and ?: work lane by lane, and mix with scalars.
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
typedef int16_t Shorts __attribute__((vector_size(2 * kLanes)));
typedef uint8_t Bytes __attribute__((vector_size(kLanes)));

template <typename V, typename T>
TMKT_INLINE V read(const T* source) {
  V vector;
  memcpy(&vector, source, sizeof(V));
  return vector;
}

template <typename V, typename T>
TMKT_INLINE void write(V vector, T* target) {
  memcpy(target, &vector, sizeof(V));
}

// Small integers to 32-bit ones, and back. GCC 12 widens half a vector at a time, and bytes one by one.
TMKT_INLINE Ints widen(Bytes x) {
#if defined(__AVX512F__)
  return (Ints)_mm512_cvtepu8_epi32((__m128i)x);
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bit_cast<int64_t>(x)));
#else
  return __builtin_convertvector(x, Ints);
#endif
}
TMKT_INLINE Ints widen(Shorts x) {
#if defined(__AVX512F__)
  return (Ints)_mm512_cvtepi16_epi32((__m256i)x);
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtepi16_epi32((__m128i)x);
#else
  return __builtin_convertvector(x, Ints);
#endif
}
TMKT_INLINE Words widen(Halves x) {
#if defined(__AVX512F__)
  return (Words)_mm512_cvtepu16_epi32((__m256i)x);
#elif defined(__AVX2__)
  return (Words)_mm256_cvtepu16_epi32((__m128i)x);
#else
  return __builtin_convertvector(x, Words);
#endif
}
TMKT_INLINE Halves narrow(Words x) {
#if defined(__AVX512F__)
  return (Halves)_mm512_cvtepi32_epi16((__m512i)x);
#elif defined(__AVX2__)  // values are below 2^16, so nothing saturates
  const __m256i packed = _mm256_packus_epi32((__m256i)x, (__m256i)x);
  return (Halves)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
#else
  return __builtin_convertvector(x, Halves);
#endif
}

TMKT_INLINE Floats load(const float* source) { return read<Floats>(source); }
TMKT_INLINE Floats load(const uint8_t* source) { return __builtin_convertvector(widen(read<Bytes>(source)), Floats); }
TMKT_INLINE Floats load(const int16_t* source) { return __builtin_convertvector(widen(read<Shorts>(source)), Floats); }
TMKT_INLINE Floats load(const BFloat16* source) { return (Floats)(widen(read<Halves>(source)) << 16); }
TMKT_INLINE Floats load(const Float16* source) {
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtph_ps(read<__m256i>(source));
#elif defined(__F16C__)
  return (Floats)_mm256_cvtph_ps(read<__m128i>(source));
#else
  // Shift exponent and mantissa into place, then rescale, which is exact for subnormals too. Restore infinity and NaN.
  const Words bits = widen(read<Halves>(source));
  const Words magnitude = (bits & 0x7fff) << 13;
  const Words finite = (Words)((Floats)magnitude * bit_cast<float>(0x77800000u));  // 2^112
  return (Floats)((magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite) | (bits & 0x8000) << 16);
#endif
}

// A vector rounded to bfloat16: the values are the upper halves of the bits.
TMKT_INLINE Words round_to_bfloat16(Floats x) {
  const Words bits = (Words)x;
  return x != x ? Words{} + 0x7fc00000u : bits + 0x7fff + ((bits >> 16) & 1);
}

// Interleaves two vectors: a0 b0 a1 b1 ...
TMKT_INLINE void interleave(Floats a, Floats b, Floats& lower, Floats& upper) {
#ifdef __AVX512F__
  const __m512i from = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  lower = (Floats)_mm512_permutex2var_ps((__m512)a, from, (__m512)b);
  upper = (Floats)_mm512_permutex2var_ps((__m512)a, _mm512_add_epi32(from, _mm512_set1_epi32(8)), (__m512)b);
#else
  for (int j = 0; j < kLanes / 2; ++j) {
    lower[2 * j] = a[j];
    lower[2 * j + 1] = b[j];
    upper[2 * j] = a[kLanes / 2 + j];
    upper[2 * j + 1] = b[kLanes / 2 + j];
  }
#endif
}

// Bits of a vector in the dtype T, rounded to nearest, ties to even.
template <typename T>
TMKT_INLINE auto to_bits(Floats x) {
  const Words bits = (Words)x;
  if constexpr (std::is_same_v<T, float>) {
    return bits;
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return narrow(round_to_bfloat16(x) >> 16);
  } else {
#if defined(__AVX512F__)
    return (Halves)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__F16C__)
    return (Halves)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#else
    const Words magnitude = bits & 0x7fffffffu;
    const Words subnormal = (Words)((Floats)magnitude + 0.5f) - 0x3f000000u;  // the float adder rounds
    const Words normal = (magnitude - 0x38000000u + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    Words half = magnitude < 0x38800000u ? subnormal : normal;
    half = magnitude >= 0x477ff000u ? Words{} + 0x7c00u : half;  // 65520 and above round to infinity
    half = magnitude > 0x7f800000u ? Words{} + 0x7e00u : half;
    return narrow(half | (bits >> 16 & 0x8000u));
#endif
  }
}

// Bits of spikes where `fired` is all ones.
template <typename T>
TMKT_INLINE auto spike_bits(Ints fired) {
  if constexpr (std::is_same_v<T, float>) {
    return (Words)fired & 0x3f800000u;
  } else {
    return narrow((Words)fired & (std::is_same_v<T, BFloat16> ? 0x3f80u : 0x3c00u));
  }
}

// Access to a vector of an array: whole, past the caches, or in part. `put` takes bits, `store` floats.
struct WholeVector {
  static constexpr int64_t width = kLanes;

  template <typename T>
  TMKT_INLINE Floats load(const T* source) const {
    return TMKT_SIMD::load(source);
  }
  template <typename V, typename T>
  TMKT_INLINE void put(V bits, T* target) const {
    write(bits, target);
  }
};

// Writes outputs that do not fit into the caches, without the read for ownership that is a third of the traffic.
// Targets must be aligned to the vector. Whole lines are twice as fast as quarters of lines.
struct StreamedVector : WholeVector {
  template <typename V, typename T>
  TMKT_INLINE void put(V bits, T* target) const {
#ifdef __AVX512F__
    if constexpr (sizeof(V) == 64) return _mm512_stream_si512(reinterpret_cast<__m512i*>(target), (__m512i)bits);
#endif
#ifdef __AVX2__
    if constexpr (sizeof(V) == 32) return _mm256_stream_si256(reinterpret_cast<__m256i*>(target), (__m256i)bits);
#endif
#ifdef __SSE2__
    if constexpr (sizeof(V) == 16) return _mm_stream_si128(reinterpret_cast<__m128i*>(target), (__m128i)bits);
#endif
    write(bits, target);
  }
  // Streamed stores are weakly ordered, and other threads may see them only after this.
  static void end() {
#ifdef __SSE2__
    _mm_sfence();
#endif
  }
};

// The first `width` lanes, fewer at the end of an array. Other lanes read as zero.
struct PartOfVector {
  int64_t width;

  template <typename T>
  TMKT_INLINE Floats load(const T* source) const {
    T lanes[kLanes] = {};
#ifdef __AVX512F__
    if constexpr (sizeof(T) == 4) {
      return (Floats)_mm512_maskz_loadu_epi32(mask(), source);
    } else if constexpr (sizeof(T) == 2) {
      write(_mm256_maskz_loadu_epi16(mask(), source), lanes);
      return TMKT_SIMD::load(lanes);
    }
#endif
    if (width == kLanes) return TMKT_SIMD::load(source);
    memcpy(lanes, source, width * sizeof(T));
    return TMKT_SIMD::load(lanes);
  }
  template <typename V, typename T>
  TMKT_INLINE void put(V bits, T* target) const {
#ifdef __AVX512F__
    if constexpr (sizeof(V) == 64) return _mm512_mask_storeu_epi32(target, mask(), (__m512i)bits);
    if constexpr (sizeof(V) == 32) return _mm256_mask_storeu_epi16(target, mask(), (__m256i)bits);
#endif
    if (width == kLanes) return write(bits, target);
    memcpy(target, &bits, width * sizeof(T));
  }

 private:
#ifdef __AVX512F__
  __mmask16 mask() const { return static_cast<__mmask16>((1u << width) - 1u); }
#endif
};

template <typename Access, typename T>
TMKT_INLINE void store(Access access, Floats x, T* target) {
  access.put(to_bits<T>(x), target);
}

// Prefetches the cache line that begins at vector `k` of a row, if one does. Any address is harmless.
template <typename T>
TMKT_INLINE void prefetch(const T* row, int k) {
  constexpr int kVectorsPerLine = sizeof(T) * kLanes < 64 ? 64 / (sizeof(T) * kLanes) : 1;
  if (k % kVectorsPerLine == 0) __builtin_prefetch(row + k * kLanes, 0, 2);
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
