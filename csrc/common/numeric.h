// Half types as bits, and helpers for host and device code.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#define TMKT_INLINE __host__ __device__ __forceinline__
#else
// Always inlined, because these functions are compiled for several SIMD levels, and the linker would merge out-of-line
// copies.
#define TMKT_INLINE inline __attribute__((always_inline))
#endif

namespace tmkt {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <typename To, typename From>
TMKT_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs equal sizes");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

// `value` in each lane of V, which is a float or a vector of floats.
template <typename V, typename P>
TMKT_INLINE V broadcast(P value) {
  if constexpr (std::is_same_v<V, P>) {
    return value;
  } else {
    return V{} + value;
  }
}

// a b + c, rounded once on a GPU, where it is one instruction. For gradients only: arithmetic that decides on a spike
// must round as the reference does.
template <typename V>
TMKT_INLINE V multiply_add(V a, V b, V c) {
#ifdef __CUDA_ARCH__
  return fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

}  // namespace tmkt
