// The LIF neurons of a thread, for the loops of scan/scan.cuh, and the choice of loops to compile.
#pragma once

#include "common/surrogate.cuh"
#include "lif/lif_args.h"

namespace tmkt {
namespace {

// Parameters of a thread's neurons: shared by all neurons (kOwn = 0), which needs no registers; one set from memory
// (kOwn = 1); or one set per neuron.
template <int kOwn>
struct Params {
  LifParams<float> params[kOwn];

  __device__ __forceinline__ Params(const LifArgs& lif, int64_t n) {
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      params[j] = lif.params;
      if (lif.coefficients) {
        const float* p = lif.coefficients + Division(Division(n + j, lif.inner).quotient, lif.channels).remainder;
        params[j] = {p[0], p[lif.channels], p[2 * lif.channels], p[3 * lif.channels], p[4 * lif.channels]};
      }
    }
  }
  __device__ __forceinline__ const LifParams<float>& operator[](int j) const { return params[kOwn > 1 ? j : 0]; }
};

template <>
struct Params<0> {
  const LifParams<float>& params;

  __device__ __forceinline__ Params(const LifArgs& lif, int64_t) : params(lif.params) {}
  __device__ __forceinline__ const LifParams<float>& operator[](int) const { return params; }
};

template <int kOwnParams, typename R, typename D>
struct LifNeurons {
  static constexpr int kOwn = kOwnParams;
  const Params<kOwnParams>& params;
  R reset;
  D detach;

  __device__ __forceinline__ LifNeuron<float, float, R, D> operator[](int j) const {
    return {params[j], reset, detach};
  }
};

template <int kOwn, typename R, typename D = std::true_type>
__device__ __forceinline__ LifNeurons<kOwn, R, D> lif_neurons(const Params<kOwn>& params, R reset, D detach = {}) {
  return {params, reset, detach};
}

// Calls f with the reset as a type: one loop per reset, without a test inside.
template <typename F>
__device__ __forceinline__ void with_reset(Reset reset, const F& f) {
  switch (static_cast<int>(reset)) {
    case static_cast<int>(Reset::kHard):
      return f(std::integral_constant<Reset, Reset::kHard>{});
    case static_cast<int>(Reset::kSoft):
      return f(std::integral_constant<Reset, Reset::kSoft>{});
    case static_cast<int>(Reset::kDelayedSubtract):
      return f(std::integral_constant<Reset, Reset::kDelayedSubtract>{});
    case static_cast<int>(Reset::kDelayedZero):
      return f(std::integral_constant<Reset, Reset::kDelayedZero>{});
    case static_cast<int>(Reset::kNone):
      return f(std::integral_constant<Reset, Reset::kNone>{});
  }
  unknown_value();
}

// Calls f with the surrogate's number, or kLookedUp. Common training cases have kernels of their own: these surrogates
// and resets, with a gradient of the spikes and none of v_seq. All other cases share kernels that test at run time.
template <typename F>
void with_surrogate(const LifBackwardArgs& args, F f) {
  const Reset reset = args.lif.reset;
  const bool common = args.grad_spikes && !args.grad_v_seq && reset != Reset::kDelayedZero && reset != Reset::kNone;
  if (common && args.surrogate.surrogate == Surrogate::kAtan) return f(IntTag<static_cast<int>(Surrogate::kAtan)>{});
  if (common && args.surrogate.surrogate == Surrogate::kSigmoid) {
    return f(IntTag<static_cast<int>(Surrogate::kSigmoid)>{});
  }
  f(IntTag<kLookedUp>{});
}

// Calls f(neurons) for backward's loop. Reset and detach are types if the surrogate is one; otherwise each of these
// loops would contain every surrogate.
template <int kSurrogate, int kOwn, typename F>
__device__ __forceinline__ void with_neurons(const LifBackwardArgs& args, const Params<kOwn>& params, const F& f) {
  using Hard = std::integral_constant<Reset, Reset::kHard>;
  using Soft = std::integral_constant<Reset, Reset::kSoft>;
  using Delayed = std::integral_constant<Reset, Reset::kDelayedSubtract>;
  const auto call = [&](auto reset, auto detach) { f(lif_neurons(params, reset, detach)); };
  if constexpr (kSurrogate == kLookedUp) {
    call(args.lif.reset, args.detach_reset);
  } else if (args.lif.reset == Reset::kHard) {
    args.detach_reset ? call(Hard{}, std::true_type{}) : call(Hard{}, std::false_type{});
  } else if (args.lif.reset == Reset::kSoft) {
    args.detach_reset ? call(Soft{}, std::true_type{}) : call(Soft{}, std::false_type{});
  } else {
    call(Delayed{}, std::true_type{});
  }
}

}  // namespace
}  // namespace tmkt
