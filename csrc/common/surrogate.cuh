// Surrogate derivatives of all values of a thread.
#pragma once

#include "common/cuda.h"
#include "common/surrogate.h"

namespace tmkt {
namespace {

// In place of a surrogate's number: the kernel looks it up at run time.
constexpr int kLookedUp = -1;

// ds/dh of all values of a thread, so that the surrogate is looked up once and the arithmetic of the values overlaps.
template <int kSurrogate, int kValues>
__device__ __forceinline__ void surrogate_derivatives(const SurrogateShape& shape, const float (&u)[kValues],
                                                      float (&out)[kValues]) {
  const auto all = [&](auto surrogate) {
#pragma unroll
    for (int j = 0; j < kValues; ++j) {
      out[j] = surrogate_derivative(decltype(surrogate)::value, u[j], shape.alpha, shape.beta);
    }
  };
  if constexpr (kSurrogate != kLookedUp) {
    return all(std::integral_constant<Surrogate, static_cast<Surrogate>(kSurrogate)>{});
  }
  switch (static_cast<int>(shape.surrogate)) {
#define TMKT_CASE(name)                   \
  case static_cast<int>(Surrogate::name): \
    return all(std::integral_constant<Surrogate, Surrogate::name>{});
    TMKT_CASE(kAtan)
    TMKT_CASE(kSigmoid)
    TMKT_CASE(kTriangle)
    TMKT_CASE(kRectangle)
    TMKT_CASE(kExponential)
    TMKT_CASE(kSoftSign)
    TMKT_CASE(kSuperSpike)
    TMKT_CASE(kFastSigmoid)
    TMKT_CASE(kErf)
    TMKT_CASE(kLog)
    TMKT_CASE(kLeakyRectangle)
    TMKT_CASE(kFourier)
    TMKT_CASE(kS2nn)
    TMKT_CASE(kQPseudoSpike)
    TMKT_CASE(kLeakyRelu)
    TMKT_CASE(kInverse)
    TMKT_CASE(kLogTailedRelu)
    TMKT_CASE(kSpikeRateEscape)
    TMKT_CASE(kSparseFastSigmoid)
    TMKT_CASE(kTent)
    TMKT_CASE(kStraightThrough)
#undef TMKT_CASE
  }
}

}  // namespace
}  // namespace tmkt
