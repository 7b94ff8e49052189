// Derivatives of the surrogates at u = h - v_threshold; mirrors tmkt_kernels/surrogate.py.
// V is a float, or a compiler vector of floats. Comparisons are written so that NaN takes the same branch as in
// surrogate.py, because a NaN in the network must not become a gradient of 0.
#pragma once

#include <cmath>
#include <type_traits>

#include "common/dispatch.h"

namespace tmkt {

enum class Surrogate : int64_t {
  kAtan,
  kSigmoid,
  kTriangle,
  kRectangle,
  kExponential,
  kSoftSign,
  kSuperSpike,
  kFastSigmoid,
  kErf,
  kLog,
  kLeakyRectangle,
  kFourier,
  kS2nn,
  kQPseudoSpike,
  kLeakyRelu,
  kInverse,
  kLogTailedRelu,
  kSpikeRateEscape,
  kSparseFastSigmoid,
  kTent,
  kStraightThrough,
};
constexpr int64_t kSurrogates = 21;

// Shape parameters of a surrogate; only surrogates with two parameters use beta.
struct SurrogateShape {
  Surrogate surrogate;
  float alpha, beta;
};

template <typename V>
TMKT_INLINE V absolute(V u) {
  return u < 0.0f ? -u : u;
}

#ifdef __CUDA_ARCH__
// Accurate to two units in the last place, without the branches of an exact division.
TMKT_INLINE float quotient(float a, float b) {
#ifdef __CUDACC__
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(b));
  return a * reciprocal;
#else
  return a / b;
#endif
}
TMKT_INLINE float exp_of_minus(float z) { return expf(-z); }
TMKT_INLINE float log_from_one(float z) { return logf(z); }
TMKT_INLINE float cosine_of_pi(float z) { return cospif(z); }
#else
template <typename V, typename W>
TMKT_INLINE W quotient(V a, W b) {
  return a / b;
}

// exp, log and cos(pi z) for vectors, which the library's functions do not take. Accurate to about 1e-7.

template <typename V>
using IntegersOf = std::conditional_t<std::is_same_v<V, float>, int32_t, decltype(V{} < V{})>;

constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits

// exp(-z) for z >= 0; NaN for NaN, whose bits the exponent below would scramble
template <typename V>
TMKT_INLINE V exp_of_minus(V z) {
  z = z > 87.0f ? 87.0f : z;  // beyond, exp(-z) is below the smallest normal float
  const V shifted = z * -1.44269504f + kRound;
  const V n = shifted - kRound;
  const V r = (-z - n * 0.693359375f) + n * 2.12194440e-4f;  // n ln 2 in two parts
  V p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const IntegersOf<V> exponent = bit_cast<IntegersOf<V> >(shifted) - bit_cast<int32_t>(kRound);
  const V scaled = bit_cast<V>(bit_cast<IntegersOf<V> >(p) + (exponent << 23));
  return z != z ? z : scaled;
}

// log(z) for 1 <= z < infinity, NaN for NaN: ln 2 times the exponent, and 2 atanh((m - 1) / (m + 1)) of the mantissa m
// around 1
template <typename V>
TMKT_INLINE V log_from_one(V z) {
  const IntegersOf<V> bits = bit_cast<IntegersOf<V> >(z);
  const IntegersOf<V> exponent = (bits - 0x3f3504f3) >> 23;  // m from sqrt(1/2) to sqrt(2)
  const V n = bit_cast<V>(exponent + bit_cast<int32_t>(kRound)) - kRound;
  const V m = bit_cast<V>(bits - (exponent << 23));
  const V q = (m - 1.0f) / (m + 1.0f), q2 = q * q;
  const V series = ((2.0f / 9.0f * q2 + 2.0f / 7.0f) * q2 + 2.0f / 5.0f) * q2 + 2.0f / 3.0f;
  const V sum = n * 0.693147181f + (2.0f * q + q * q2 * series);
  return z != z ? z : sum;
}

// cos(pi z), computed as the sine around the nearest zero
template <typename V>
TMKT_INLINE V cosine_of_pi(V z) {
  const V shifted = (z + 0.5f) + kRound;
  const V r = 3.14159265359f * (z - ((shifted - kRound) - 0.5f));
  const V r2 = r * r;
  V p = 2.6083159809786593541503e-6f * r2 - 0.0001981069071916863322258f;
  p = p * r2 + 0.00833307858556509017944336f;
  p = p * r2 - 0.166666597127914428710938f;
  const V sine = p * r2 * r + r;
  const IntegersOf<V> odd = bit_cast<IntegersOf<V> >(shifted) & 1;
  return odd == 0 ? sine : -sine;
}
#endif

// Whether u is inside a rectangular surrogate, which is 1 / alpha wide.
template <typename V>
TMKT_INLINE auto within_rectangle(V u, float alpha) {
  return absolute(u) < 0.5f / alpha;
}

// The surrogate is a compile-time constant on the CPU and a uniform run-time value on CUDA.
template <typename V>
TMKT_INLINE V surrogate_derivative(Surrogate surrogate, V u, float alpha, float beta) {
  switch (surrogate) {
    case Surrogate::kAtan: {
      const V z = 1.57079632679f * alpha * u;
      return quotient(0.5f * alpha, multiply_add(z, z, V{} + 1.0f));
    }
    case Surrogate::kSigmoid: {
      const V e = exp_of_minus(alpha * absolute(u));
      return quotient(alpha * e, (1.0f + e) * (1.0f + e));
    }
    case Surrogate::kTriangle: {
      const V d = alpha - alpha * alpha * absolute(u);
      return d < 0.0f ? 0.0f : d;
    }
    case Surrogate::kRectangle:
      return within_rectangle(u, alpha) ? alpha : 0.0f;
    case Surrogate::kExponential:
      return 0.5f * alpha * exp_of_minus(alpha * absolute(u));
    case Surrogate::kSoftSign: {
      const V d = 1.0f + alpha * absolute(u);
      return quotient(0.5f * alpha, d * d);
    }
    case Surrogate::kSuperSpike: {
      const V d = 1.0f + absolute(u);
      return quotient(alpha, d * d);
    }
    case Surrogate::kFastSigmoid: {
      const V d = 1.0f + alpha * absolute(u);
      return quotient(1.0f, d * d);
    }
    case Surrogate::kErf: {
      const V z = alpha * u;
      return 0.564189583548f * alpha * exp_of_minus(z * z);
    }
    case Surrogate::kLog:
      return quotient(alpha, 1.0f + alpha * absolute(u));
    case Surrogate::kLeakyRectangle:
      return within_rectangle(u, alpha) ? alpha : beta;
    case Surrogate::kFourier: {
      // cos((2 i + 1) x) = 2 cos(2 x) cos((2 i - 1) x) - cos((2 i - 3) x)
      const V first = cosine_of_pi(2.0f * alpha * u);
      const V twice = 4.0f * first * first - 2.0f;
      V term = first, before = first, sum = first;
      for (int i = 2; i <= static_cast<int>(beta); ++i) {
        const V next = twice * term - before;
        before = term;
        term = next;
        sum = sum + term;
      }
      return 4.0f * alpha * sum;
    }
    case Surrogate::kS2nn: {
      const V e = exp_of_minus(alpha * absolute(u));
      return u < 0.0f ? quotient(alpha * e, (1.0f + e) * (1.0f + e)) : quotient(beta, 1.0f + absolute(u));
    }
    case Surrogate::kQPseudoSpike:
      return exp_of_minus(alpha * log_from_one(1.0f + 2.0f / (alpha - 1.0f) * absolute(u)));
    case Surrogate::kLeakyRelu:
      return u >= 0.0f ? alpha : beta;
    case Surrogate::kInverse: {
      const V d = quotient(1.0f, absolute(u));
      return d > alpha ? alpha : d;
    }
    case Surrogate::kLogTailedRelu: {
      const V tail = quotient(1.0f, V(u < 1.0f ? 1.0f : u));
      return u <= 0.0f ? alpha : tail;
    }
    case Surrogate::kSpikeRateEscape:
      return alpha * exp_of_minus(beta * absolute(u - 1.0f));
    case Surrogate::kSparseFastSigmoid: {
      const V d = 1.0f + alpha * absolute(u);
      return u <= beta ? 0.0f : quotient(1.0f, d * d);
    }
    case Surrogate::kTent:
      return u >= 0.0f ? -alpha : alpha;
    case Surrogate::kStraightThrough:
      return V{} + alpha;
  }
  return u;
}

}  // namespace tmkt
