// What a bn_lif kernel is given, on the CPU and on CUDA.
#pragma once

#include <cmath>

#include "lif/lif_args.h"

namespace tmkt {

// 1 / standard deviation times weight, rounded as tmkt_kernels/ops/bn_lif/reference.py does.
TMKT_INLINE float bn_scale(float var, float weight, float eps) { return weight / sqrtf(var + eps); }

// Batch normalisation: neuron n of a step belongs to channel n / inner % channels. The neuron's current is
// (x - mean) * scale + bias, in this order of rounding.
struct BnArgs {
  int64_t channels, inner;
  int64_t pool_width;            // 0; or, with 2x2 average pooling of the spikes, the width of a plane [inner]
  const float* mean = nullptr;   // [channels], here and below
  const float* scale = nullptr;  // 1 / std * weight
  const float* bias = nullptr;
};

// What these are made from before the neurons run; BnArgs points to the same memory.
struct BnPrepare {
  const float* weight = nullptr;  // or null for 1
  float eps = 0.0f;
  const float* var = nullptr;   // given, or batch_var
  float* batch_mean = nullptr;  // to be filled with the statistics of x, as batch_var; null where they are given
  float* batch_var = nullptr;
  float* scale = nullptr;      // to be filled
  float* zero_bias = nullptr;  // to be filled with 0; null where a bias is given
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
  BnPrepare prepare;
};

struct BnLifBackwardArgs : LifBackwardArgs {
  BnArgs bn;
  BnPrepare prepare;
  // With g the gradient of the current: given statistics have no gradient, and one pass writes grad_x = scale * g
  // beside the sums of g and of g (x - mean). With those of the batch a first pass makes the sums, and a second grad_x
  // = scale * (g - g_mean - (x - mean) * slope). On the CPU the first leaves g in grad_x if that is float32; a half
  // type would overflow or round it, so there, and on CUDA, the second pass makes it again.
  bool batch_statistics;
  bool second_pass;    // on the CPU: this is that one
  float* grad_weight;  // [channels], here and below, to be filled
  float* grad_bias;
  float* g_mean;
  float* slope;
  float* sums;  // [2, N], for backends that take them neuron by neuron
};

}  // namespace tmkt
