// What a bn_lif kernel is given, on the CPU and on CUDA.
#pragma once

#include <cmath>

#include "lif/lif_args.h"

namespace tmkt {

// 1 / standard deviation times weight, rounded as tmkt_kernels/bn_lif/reference.py does.
TMKT_INLINE float bn_scale(float var, float weight, float eps) { return weight / sqrtf(var + eps); }

// Batch normalisation: neuron n of a step belongs to channel n / inner % channels. The neuron's current is
// (x - mean) * scale + bias, in this order of rounding.
struct BnArgs {
  int64_t channels, inner;
  const float* mean;   // [channels], here and below
  const float* scale;  // 1 / std * weight
  const float* bias;
};

// What backward makes of a channel's sums of g and g (x - mean), over `count` values.
struct BnGradients {
  float weight, bias;
  float g_mean, slope;
};
TMKT_INLINE BnGradients bn_gradients(double sum_g, double sum_gd, float var, float eps, int64_t count) {
  const float invstd = bn_scale(var, 1.0f, eps), values = static_cast<float>(count);
  const float weight = static_cast<float>(sum_gd) * invstd, bias = static_cast<float>(sum_g);
  return {weight, bias, bias / values, weight * invstd / values};
}

struct BnLifForwardArgs : LifForwardArgs {
  BnArgs bn;
};

struct BnLifBackwardArgs : LifBackwardArgs {
  BnArgs bn;
  // With statistics of the batch the neurons' backward leaves in grad_x the gradient g of the current, and in `sums`
  // [2, N] its sums over t, of g and of g (x - mean). The second pass makes of it
  // grad_x = scale * (g - g_mean - (x - mean) * slope). With given statistics, which have no gradient, the first writes
  // grad_x = scale * g, and there is no second.
  bool batch_statistics;
  float* sums;
  const float* g_mean;
  const float* slope;
};

}  // namespace tmkt
