// The LIF neurons of a tile, for the loops of scan/scan_simd-inl.h, and the choice of loops to compile.
#pragma once

#include "lif/lif_args.h"
#include "scan/scan_simd-inl.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

// K vectors of neurons with shared parameters, or with one set per neuron.
template <typename R, typename D>
struct SharedNeurons {
  LifNeuron<Floats, float, R, D> neuron;
  TMKT_INLINE const auto& operator[](int) const { return neuron; }
};

template <int K, typename R, typename D>
struct OwnNeurons {
  LifNeuron<Floats, Floats, R, D> neurons[K];
  TMKT_INLINE const auto& operator[](int k) const { return neurons[k]; }

  // Neurons n.. of a step; the last vector may be partly filled.
  OwnNeurons(const LifArgs& lif, R reset, D detach, int64_t n, int64_t count) {
    float rows[kLifParams][K * kLanes] = {};
    for (int i = 0; i < kLifParams; ++i) {
      spread_channels(lif.coefficients + i * lif.channels, lif.channels, lif.inner, n, count, rows[i]);
    }
    for (int k = 0; k < K; ++k) {
      const auto at = [&](int i) { return TMKT_SIMD::load(rows[i] + k * kLanes); };
      neurons[k] = {{at(0), at(1), at(2), at(3), at(4)}, reset, detach};
    }
  }
};

template <typename R, typename D = std::true_type>
TMKT_INLINE SharedNeurons<R, D> shared_neurons(const LifArgs& lif, R reset, D detach = {}) {
  if (!lif.coefficients) return {{lif.params, reset, detach}};
  const float* p = lif.coefficients;  // of the only channel
  return {{{p[0], p[1], p[2], p[3], p[4]}, reset, detach}};
}

// Calls f(neurons) with the neurons of a tile.
template <int K, typename Lanes, typename R, typename D, typename F>
TMKT_INLINE void with_neurons(const LifArgs& lif, Lanes lanes, R reset, D detach, F f) {
  if (lif.channels > 1) {
    f(OwnNeurons<K, R, D>(lif, reset, detach, lanes.n, count_of<K>(lanes)));
  } else {
    f(shared_neurons(lif, reset, detach));
  }
}

template <auto kValue>
using Constant = std::integral_constant<decltype(kValue), kValue>;

// Each copy of the loops takes seconds to compile. Rare cases share one copy, which tests the reset and the requested
// gradients at run time. x86 processors without AVX2 are rare too, so they have only that copy.
#if defined(__x86_64__) && !defined(__AVX2__)
constexpr bool kOneCopy = true;
#else
constexpr bool kOneCopy = false;
#endif

// Calls f(reset).
template <typename F>
TMKT_INLINE void with_reset(Reset reset, F f) {
  if constexpr (!kOneCopy) {
    if (reset == Reset::kHard) return f(Constant<Reset::kHard>{});
    if (reset == Reset::kSoft) return f(Constant<Reset::kSoft>{});
    if (reset == Reset::kDelayedSubtract) return f(Constant<Reset::kDelayedSubtract>{});  // snnTorch's default
  }
  f(reset);
}

inline bool is_plain(const LifBackwardArgs& args) {
  return args.detach_reset && args.grad_spikes && !args.grad_v_seq && !args.grad_coefficients && args.lif.channels <= 1;
}

// Calls f(reset, variant), for values of type T.
template <typename T, typename F>
TMKT_INLINE void with_backward_variant(const LifBackwardArgs& args, F f) {
  if constexpr (!kOneCopy) {
    const Constant<Reset::kHard> hard;
    const Constant<Reset::kSoft> soft;
    const Constant<Reset::kDelayedSubtract> delayed;
    const bool plain = is_plain(args);
    const Reset reset = args.lif.reset;
    if constexpr (!std::is_same_v<T, Float16>) {
      if (plain && args.surrogate.surrogate == Surrogate::kAtan) {
        if (reset == hard) return f(hard, Constant<BackwardVariant::kPlainAtan>{});
        if (reset == soft) return f(soft, Constant<BackwardVariant::kPlainAtan>{});
        if (reset == delayed) return f(delayed, Constant<BackwardVariant::kPlainAtan>{});
      }
      if (!plain && reset == hard) return f(hard, Constant<BackwardVariant::kAnything>{});  // SpikingJelly's default
    }
    if (plain && reset == hard) return f(hard, Constant<BackwardVariant::kPlain>{});
    if (plain && reset == soft) return f(soft, Constant<BackwardVariant::kPlain>{});
  }
  f(args.lif.reset, Constant<BackwardVariant::kAnything>{});
}

// Whether no gradient goes through the reset: a constant in the plain variants.
template <BackwardVariant kVariant>
TMKT_INLINE auto detach_of(const LifBackwardArgs& args) {
  if constexpr (kVariant == BackwardVariant::kAnything) {
    return args.detach_reset;
  } else {
    return std::true_type{};
  }
}

}  // namespace
}  // namespace TMKT_SIMD
}  // namespace tmkt
