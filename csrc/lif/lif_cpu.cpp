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

// The schemas of tmkt_kernels/ops/lif/op.py, so that a program without Python has the operators too.
#define TMKT_LIF_INPUTS                                                                                          \
  "Tensor x, Tensor? v_init, Tensor? coefficients, SymInt inner, float a, float b, float c, float v_threshold, " \
  "float v_reset, int reset, int surrogate, float alpha, float beta, bool detach_reset"
STABLE_TORCH_LIBRARY_FRAGMENT(tmkt, m) {
  m.def("lif_fwd(" TMKT_LIF_INPUTS ", bool return_v) -> (Tensor, Tensor, Tensor)");
  m.def("lif_bwd(Tensor? grad_spikes, Tensor? grad_v_last, Tensor? grad_v_seq, " TMKT_LIF_INPUTS
        ", bool need_coefficients) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(tmkt, CPU, m) {
  m.impl("lif_fwd", TORCH_BOX(&lif_fwd<forward_cpu>));
  m.impl("lif_bwd", TORCH_BOX(&lif_bwd<backward_cpu>));
}

}  // namespace tmkt
