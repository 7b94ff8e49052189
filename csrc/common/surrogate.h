// Derivatives of the surrogates at u = h - v_threshold; mirrors tmkt_kernels/surrogate.py.
#pragma once

#include <cmath>

#include "common/numeric.h"

namespace tmkt {

enum class Surrogate : int64_t { kAtan = 0, kSigmoid = 1, kTriangle = 2, kRectangle = 3 };
constexpr int64_t kSurrogates = 4;

// exp(-z) for z >= 0, to about 1e-7. The library's expf keeps the host compiler from vectorising the loop around it.
TMKT_INLINE float exp_of_minus(float z) {
#ifdef __CUDA_ARCH__
  return expf(-z);
#else
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  z = z < 87.0f ? z : 87.0f;             // beyond, exp(-z) is below the smallest normal float
  const float shifted = z * -1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (-z - n * 0.693359375f) + n * 2.12194440e-4f;  // n ln 2 in two parts
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t exponent = bit_cast<int32_t>(shifted) - bit_cast<int32_t>(kRound);
  return bit_cast<float>(bit_cast<int32_t>(p) + (exponent << 23));
#endif
}

template <Surrogate kSurrogate>
TMKT_INLINE float surrogate_derivative(float u, float alpha) {
  if constexpr (kSurrogate == Surrogate::kAtan) {
    const float z = 1.57079632679f * alpha * u;
    return 0.5f * alpha / (1.0f + z * z);
  } else if constexpr (kSurrogate == Surrogate::kSigmoid) {
    const float e = exp_of_minus(alpha * (u < 0.0f ? -u : u));
    return alpha * e / ((1.0f + e) * (1.0f + e));
  } else if constexpr (kSurrogate == Surrogate::kTriangle) {
    const float d = alpha - alpha * alpha * (u < 0.0f ? -u : u);
    return d > 0.0f ? d : 0.0f;
  } else {
    static_assert(kSurrogate == Surrogate::kRectangle, "a surrogate without a derivative");
    return (u < 0.0f ? -u : u) < 0.5f / alpha ? alpha : 0.0f;
  }
}

}  // namespace tmkt
