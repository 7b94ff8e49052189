// tmkt::lif_fwd and tmkt::lif_bwd on the CPU: tiles of neurons shared out among torch's threads.
#include <algorithm>
#include <vector>

#include "common/cpu.h"
#include "lif/lif_op.h"
#include "lif/lif_simd.h"

namespace tmkt {
namespace {

bool use_stream(const LifArgs& args) {
  return worth_streaming(args.T * args.N, args.kind) && args.N % kStreamMultiple == 0;
}

template <typename F>
void parallel_over_tiles(const LifArgs& args, const F& work) {
  const int64_t tiles = (args.N + kLifTile - 1) / kLifTile;
  const int64_t grain = std::max<int64_t>(1, kGrainElements / (args.T * kLifTile));
  torch::stable::parallel_for(
      0, tiles, grain, [&](int64_t begin, int64_t end) { work(begin * kLifTile, std::min(end * kLifTile, args.N)); });
}

void forward_cpu(const LifForwardArgs& args, const Tensor&) {
  const bool stream = use_stream(args);
  parallel_over_tiles(args, [&](int64_t begin, int64_t end) { TMKT_PICK_SIMD(lif_forward)(args, stream, begin, end); });
}

void backward_cpu(const LifBackwardArgs& args, const Tensor&) {
  const bool stream = use_stream(args);
  parallel_over_tiles(args, [&](int64_t begin, int64_t end) {
    std::vector<Line> history(args.T * kLifTile / 16);
    TMKT_PICK_SIMD(lif_backward)(args, stream, history.data()->values, begin, end);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tmkt, CPU, m) {
  m.impl("lif_fwd", TORCH_BOX(&lif_fwd<forward_cpu>));
  m.impl("lif_bwd", TORCH_BOX(&lif_bwd<backward_cpu>));
}

}  // namespace tmkt
