// Division of the neurons of a step among torch's threads.
#pragma once

#include <algorithm>

#include "common/cpu.h"
#include "common/stable.h"
#include "scan/scan_args.h"

namespace tmkt {

inline bool use_stream(const ScanArgs& args) {
  return worth_streaming(args.T * args.N, args.kind) && args.N % kStreamMultiple == 0;
}

template <typename F>
void parallel_over_tiles(const ScanArgs& args, const F& work) {
  const int64_t tiles = (args.N + kScanTile - 1) / kScanTile;
  torch::stable::parallel_for(0, tiles, grain_size(args.T * kScanTile), [&](int64_t begin, int64_t end) {
    work(begin * kScanTile, std::min(end * kScanTile, args.N));
  });
}

}  // namespace tmkt
