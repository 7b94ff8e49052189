// What a lif kernel is given, on the CPU and on CUDA: sizes, scalars, raw pointers.
#pragma once

#include "common/dispatch.h"
#include "lif/lif_step.h"

namespace tmkt {

struct LifArgs {
  LifParams params;
  Reset reset;
  FloatKind kind;  // of x, spikes, v_seq and their gradients
  int64_t T, N;
  const void* x;        // [T, N]
  const float* v_init;  // [N] or null
};

struct LifForwardArgs : LifArgs {
  void* spikes;   // [T, N]
  float* v_last;  // [N]
  void* v_seq;    // [T, N] or null
};

struct LifBackwardArgs : LifArgs {
  Surrogate surrogate;
  bool detach_reset;
  const void* grad_spikes;   // [T, N] or null
  const float* grad_v_last;  // [N] or null
  const void* grad_v_seq;    // [T, N] or null
  void* grad_x;              // [T, N]
  float* grad_v_init;        // [N], null without v_init
};

}  // namespace tmkt
