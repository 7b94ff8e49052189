// tmkt::lif_fwd and tmkt::lif_bwd on the CPU: tiles of neurons shared out among torch's threads.
#include <vector>

#include "lif/lif_cpu.h"
#include "lif/lif_op.h"

namespace tmkt {
namespace {

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
