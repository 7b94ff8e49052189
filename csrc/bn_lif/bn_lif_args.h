// Arguments of the bn_lif kernels, for CPU and CUDA.
#pragma once

#include <cmath>

#include "lif/lif_args.h"

namespace tmkt {

// weight / standard deviation, rounded as in tmkt_kernels/ops/bn_lif/reference.py.
TMKT_INLINE float bn_scale(float var, float weight, float eps) { return weight / sqrtf(var + eps); }

// Batch normalisation. Neuron n of a step belongs to channel n / inner % channels, and its current is
// (x - mean) * scale + bias, rounded in this order.
struct BnArgs {
  int64_t channels, inner;
  int64_t pool_width;            // 0, or the width of a plane [inner] if spikes are average-pooled 2x2
  const float* mean = nullptr;   // [channels], here and below
  const float* scale = nullptr;  // 1 / std * weight
  const float* bias = nullptr;
};

// Sources of the values in BnArgs, which are computed before the neurons run. BnArgs points to the same memory.
struct BnPrepare {
  const float* weight = nullptr;  // or null for 1
  float eps = 0.0f;
  const float* var = nullptr;   // user's, or batch_var
  float* batch_mean = nullptr;  // output, as batch_var: statistics of x; null if the user gives them
  float* batch_var = nullptr;
  float* scale = nullptr;      // output
  float* zero_bias = nullptr;  // output, zeros; null if there is a bias
};

// Gradients of a channel, made of its sums of g and g (x - mean) over `count` values.
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
  // g is the gradient of the current. Statistics that the user gives have no gradient, so one pass writes
  // grad_x = scale * g and sums g and g (x - mean). With statistics of the batch, a first pass makes the sums and a
  // second writes grad_x = scale * (g - g_mean - (x - mean) * slope). On the CPU the first pass leaves g in grad_x if
  // that is float32. A half type would overflow or round g, so there, and on CUDA, the second pass computes g again.
  bool batch_statistics;
  bool second_pass;    // on the CPU: whether this is the second pass
  float* grad_weight;  // outputs [channels], here and below
  float* grad_bias;
  float* g_mean;
  float* slope;
  float* sums;  // [2, N], for backends that sum neuron by neuron
};

}  // namespace tmkt
