// Arguments of the lif kernels, for CPU and CUDA.
#pragma once

#include "lif/lif_neuron.h"
#include "scan/scan_args.h"

namespace tmkt {

// Reset and parameters of the neurons.
struct LifArgs {
  LifParams<float> params;  // of all neurons, if `coefficients` is null
  Reset reset;
  const float* coefficients;  // [kLifParams, channels] or null; neuron n has those of channel n / inner % channels
  int64_t channels, inner;
};

struct LifForwardArgs : ScanForwardArgs {
  LifArgs lif;
};

struct LifBackwardArgs : ScanBackwardArgs {
  LifArgs lif;
  bool detach_reset;
  float* grad_coefficients;  // [kLifParams, N], per neuron, or null
};

}  // namespace tmkt
