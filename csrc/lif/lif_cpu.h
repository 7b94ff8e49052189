// How the neurons of lif and bn_lif are shared out among torch's threads.
#pragma once

#include <algorithm>

#include "common/cpu.h"
#include "common/stable.h"
#include "lif/lif_simd.h"

namespace tmkt {

inline bool use_stream(const LifArgs& args) {
  return worth_streaming(args.T * args.N, args.kind) && args.N % kStreamMultiple == 0;
}

template <typename F>
void parallel_over_tiles(const LifArgs& args, const F& work) {
  const int64_t tiles = (args.N + kLifTile - 1) / kLifTile;
  torch::stable::parallel_for(0, tiles, grain_size(args.T * kLifTile), [&](int64_t begin, int64_t end) {
    work(begin * kLifTile, std::min(end * kLifTile, args.N));
  });
}

}  // namespace tmkt
