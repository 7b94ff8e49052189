// tmkt::lif_fwd and tmkt::lif_bwd on the CPU: torch's threads share the tiles of neurons.
#include <vector>

#include "lif/lif_op.h"
#include "lif/lif_simd.h"
#include "scan/scan_cpu.h"

namespace tmkt {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}

  void forward(const LifForwardArgs& args) const {
    const bool stream = use_stream(args);
    parallel_over_tiles(args,
                        [&](int64_t begin, int64_t end) { TMKT_PICK_SIMD(lif_forward)(args, stream, begin, end); });
  }

  void backward(const LifBackwardArgs& args) const {
    const bool stream = use_stream(args);
    parallel_over_tiles(args, [&](int64_t begin, int64_t end) {
      std::vector<CacheLine> history(args.T * kScanTile / 16);
      TMKT_PICK_SIMD(lif_backward)(args, stream, history.data()->values, begin, end);
    });
  }
};

}  // namespace

// Schemas of tmkt_kernels/ops/lif/op.py, repeated so that a program without Python has the operators too.
#define TMKT_LIF_INPUTS                                                                                          \
  "Tensor x, Tensor? v_init, Tensor? coefficients, SymInt inner, float a, float b, float c, float v_threshold, " \
  "float v_reset, int reset, int surrogate, float alpha, float beta, bool detach_reset"
STABLE_TORCH_LIBRARY_FRAGMENT(tmkt, m) {
  m.def("lif_fwd(" TMKT_LIF_INPUTS ", bool return_v) -> (Tensor, Tensor, Tensor)");
  m.def("lif_bwd(Tensor? grad_spikes, Tensor? grad_v_last, Tensor? grad_v_seq, " TMKT_LIF_INPUTS
        ", bool need_coefficients) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(tmkt, CPU, m) {
  m.impl("lif_fwd", TORCH_BOX(&lif_fwd<Cpu>));
  m.impl("lif_bwd", TORCH_BOX(&lif_bwd<Cpu>));
}

}  // namespace tmkt
