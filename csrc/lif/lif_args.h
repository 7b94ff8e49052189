// What a lif kernel is given, on the CPU and on CUDA.
#pragma once

#include "lif/lif_neuron.h"
#include "scan/scan_args.h"

namespace tmkt {

// Which neurons they are.
struct LifArgs {
  LifParams<float> params;  // of all neurons, where `coefficients` is null
  Reset reset;
  const float* coefficients;  // [kLifParams, channels] or null: neuron n has those of channel n / inner % channels
  int64_t channels, inner;
};

struct LifForwardArgs : ScanForwardArgs {
  LifArgs lif;
};

struct LifBackwardArgs : ScanBackwardArgs {
  LifArgs lif;
  bool detach_reset;
  float* grad_coefficients;  // [kLifParams, N], of each neuron, or null
};

}  // namespace tmkt
