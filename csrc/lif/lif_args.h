// What a lif kernel is given, on the CPU and on CUDA: sizes, scalars, raw pointers.
#pragma once

#include "common/dispatch.h"
#include "lif/lif_step.h"

namespace tmkt {

struct LifArgs {
  LifParams<float> params;  // of all neurons, where `coefficients` is null
  Reset reset;
  FloatKind kind;  // of x, spikes, v_seq and their gradients
  int64_t T, N;
  const void* x;              // [T, N]
  const float* v_init;        // [N] or null
  const float* coefficients;  // [kLifParams, channels] or null: neuron n has those of channel n / inner % channels
  int64_t channels, inner;
};

struct LifForwardArgs : LifArgs {
  void* spikes;   // [T, N]
  float* v_last;  // [N]
  void* v_seq;    // [T, N] or null
};

struct LifBackwardArgs : LifArgs {
  SurrogateShape surrogate;
  bool detach_reset;
  const void* grad_spikes;   // [T, N] or null
  const float* grad_v_last;  // [N] or null
  const void* grad_v_seq;    // [T, N] or null
  void* grad_x;              // [T, N]
  float* grad_v_init;        // [N], null without v_init
  float* grad_coefficients;  // [kLifParams, N], of each neuron, or null
};

}  // namespace tmkt
