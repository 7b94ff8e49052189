// Included before each .cu file of csrc/: torch's headers, with a guard that takes the index of a tensor on the CPU.
#pragma once

#include "common/stable.h"

namespace torch::stable::accelerator {
struct EmulatedGuard {
  explicit EmulatedGuard(DeviceIndex) {}
};
}  // namespace torch::stable::accelerator
#define DeviceGuard EmulatedGuard

#include "cuda_runtime.h"
