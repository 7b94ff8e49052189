// Derivatives of the surrogates at u = h - v_threshold; mirrors tmkt_kernels/surrogate.py.
// V is a float, or a vector of floats of the compiler.
#pragma once

#include <cmath>
#include <type_traits>

#include "common/dispatch.h"

namespace tmkt {

enum class Surrogate : int64_t { kAtan = 0, kSigmoid = 1, kTriangle = 2, kRectangle = 3 };
constexpr int64_t kSurrogates = 4;

template <typename F>
static inline void with_surrogate(Surrogate surrogate, F f) {
  switch (surrogate) {
    case Surrogate::kAtan:
      return f(std::integral_constant<Surrogate, Surrogate::kAtan>{});
    case Surrogate::kSigmoid:
      return f(std::integral_constant<Surrogate, Surrogate::kSigmoid>{});
    case Surrogate::kTriangle:
      return f(std::integral_constant<Surrogate, Surrogate::kTriangle>{});
    case Surrogate::kRectangle:
      return f(std::integral_constant<Surrogate, Surrogate::kRectangle>{});
  }
  __builtin_unreachable();  // the operators check the number
}

// exp(-z) for z >= 0, to about 1e-7. The library's expf takes no vectors.
template <typename V>
TMKT_INLINE V exp_of_minus(V z) {
#ifdef __CUDA_ARCH__
  return expf(-z);
#else
  using Integers = std::conditional_t<std::is_same_v<V, float>, int32_t, decltype(z < z)>;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  z = z < 87.0f ? z : 87.0f;             // beyond, exp(-z) is below the smallest normal float
  const V shifted = z * -1.44269504f + kRound;
  const V n = shifted - kRound;
  const V r = (-z - n * 0.693359375f) + n * 2.12194440e-4f;  // n ln 2 in two parts
  V p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Integers exponent = bit_cast<Integers>(shifted) - bit_cast<int32_t>(kRound);
  return bit_cast<V>(bit_cast<Integers>(p) + (exponent << 23));
#endif
}

template <typename V>
TMKT_INLINE V absolute(V u) {
  return u < 0.0f ? -u : u;
}

// `surrogate` is a constant on the CPU, where it is compiled into the loops; a uniform run-time value on CUDA.
template <typename V>
TMKT_INLINE V surrogate_derivative(Surrogate surrogate, V u, float alpha) {
  switch (surrogate) {
    case Surrogate::kAtan: {
      const V z = 1.57079632679f * alpha * u;
      return 0.5f * alpha / (1.0f + z * z);
    }
    case Surrogate::kSigmoid: {
      const V e = exp_of_minus(alpha * absolute(u));
      return alpha * e / ((1.0f + e) * (1.0f + e));
    }
    case Surrogate::kTriangle: {
      const V d = alpha - alpha * alpha * absolute(u);
      return d > 0.0f ? d : 0.0f;
    }
    case Surrogate::kRectangle:
      return absolute(u) < 0.5f / alpha ? alpha : 0.0f;
  }
  return u;
}

}  // namespace tmkt
