// Arguments of the loop over T, for any neuron, for CPU and CUDA: sizes and raw pointers.
#pragma once

#include "common/dispatch.h"
#include "common/surrogate.h"

namespace tmkt {

struct ScanArgs {
  FloatKind kind;  // of x, spikes, v_seq and their gradients
  int64_t T, N;
  const void* x;        // [T, N]
  const float* v_init;  // [N] or null; with several state variables, this and every [N] below is [states, N]
};

struct ScanForwardArgs : ScanArgs {
  void* spikes;   // [T, N], or the form in which the sink of the spikes stores them
  float* v_last;  // [N]
  void* v_seq;    // [T, N] or null
};

struct ScanBackwardArgs : ScanArgs {
  SurrogateShape surrogate;
  const void* grad_spikes;   // like the spikes, or null
  const float* grad_v_last;  // [N] or null
  const void* grad_v_seq;    // [T, N] or null
  void* grad_x;              // [T, N]
  float* grad_v_init;        // [N], null without v_init
};

}  // namespace tmkt
