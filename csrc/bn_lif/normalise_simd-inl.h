// Batch normalisation as the input of the loops of scan/scan_simd-inl.h, and its gradient. `values` has mean(k),
// scale(k), bias(k), g_mean(k) and slope(k) of vector k, as scalars or vectors.
#pragma once

#include "bn_lif/bn_lif_args.h"
#include "lif/lif_neurons_simd-inl.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

template <typename Values>
struct NormalisedInput {
  Values values;
  TMKT_INLINE Floats operator()(int64_t, int k, Floats x) const {
    return (x - values.mean(k)) * values.scale(k) + values.bias(k);
  }
};

// The gradient g less the part that the statistics of the batch take, see BnLifBackwardArgs; not yet times scale.
template <typename Value>
TMKT_INLINE Floats less_statistics(Floats g, Floats centered, Value g_mean, Value slope) {
  return g - g_mean - centered * slope;
}

}  // namespace
}  // namespace TMKT_SIMD
}  // namespace tmkt
