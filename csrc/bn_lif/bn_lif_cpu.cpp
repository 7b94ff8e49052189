// tmkt::bn_lif_fwd and tmkt::bn_lif_bwd on the CPU. Sums over neurons have a fixed order whatever the threads.
#include <vector>

#include "bn_lif/bn_lif_op.h"
#include "bn_lif/bn_lif_simd.h"
#include "lif/lif_cpu.h"

namespace tmkt {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}

  static std::vector<double> sums(const float* values, int64_t N, int64_t channels, int64_t inner,
                                  const std::vector<double>& center, int power) {
    std::vector<double> result(channels);
    TMKT_PICK_SIMD(channel_sums)(values, N, channels, inner, center.data(), power, result.data());
    return result;
  }

  // From the moments of each neuron over t: the squares within a neuron, and those between the means of neurons.
  void statistics(const LifArgs& args, int64_t channels, int64_t inner, float* mean, float* var) const {
    std::vector<float> moments(2 * args.N);
    parallel_over_tiles(
        args, [&](int64_t begin, int64_t end) { TMKT_PICK_SIMD(bn_moments)(args, moments.data(), begin, end); });
    const double neurons = static_cast<double>(args.N / channels), steps = static_cast<double>(args.T);
    const std::vector<double> zero(channels);
    std::vector<double> center = sums(moments.data(), args.N, channels, inner, zero, 1);
    for (double& m : center) m /= neurons;
    const std::vector<double> between = sums(moments.data(), args.N, channels, inner, center, 2);
    const std::vector<double> within = sums(moments.data() + args.N, args.N, channels, inner, zero, 1);
    for (int64_t c = 0; c < channels; ++c) {
      mean[c] = static_cast<float>(center[c]);
      var[c] = static_cast<float>((within[c] + steps * between[c]) / (steps * neurons));
    }
  }

  void scale(int64_t channels, const float* var, const float* weight, float eps, float* scale, float* no_bias) const {
    for (int64_t c = 0; c < channels; ++c) {
      scale[c] = bn_scale(var[c], weight ? weight[c] : 1.0f, eps);
      if (no_bias) no_bias[c] = 0.0f;
    }
  }

  void forward(const BnLifForwardArgs& args) const {
    const bool stream = use_stream(args);
    parallel_over_tiles(args,
                        [&](int64_t begin, int64_t end) { TMKT_PICK_SIMD(bn_lif_forward)(args, stream, begin, end); });
  }

  void backward(const BnLifBackwardArgs& args) const {
    const bool stream = !args.sums && use_stream(args);
    parallel_over_tiles(args, [&](int64_t begin, int64_t end) {
      std::vector<Line> history(args.T * kLifTile / 16);
      TMKT_PICK_SIMD(bn_lif_backward)(args, stream, history.data()->values, begin, end);
    });
  }

  void backward_sums(const BnLifBackwardArgs& args, const float* var, float eps, bool batch_statistics,
                     float* grad_weight, float* grad_bias, float* g_mean, float* slope) const {
    const int64_t channels = args.bn.channels, inner = args.bn.inner;
    const std::vector<double> zero(channels);
    if (args.N > 0) backward(args);
    const std::vector<double> g = sums(args.sums, args.N, channels, inner, zero, 1);
    const std::vector<double> gd = sums(args.sums + args.N, args.N, channels, inner, zero, 1);
    for (int64_t c = 0; c < channels; ++c) {
      const BnGradients grad = bn_gradients(g[c], gd[c], var[c], eps, batch_statistics, args.T * args.N / channels);
      grad_weight[c] = grad.weight;
      grad_bias[c] = grad.bias;
      g_mean[c] = grad.g_mean;
      slope[c] = grad.slope;
    }
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tmkt, CPU, m) {
  m.impl("bn_lif_fwd", TORCH_BOX(&bn_lif_fwd<Cpu>));
  m.impl("bn_lif_bwd", TORCH_BOX(&bn_lif_bwd<Cpu>));
}

}  // namespace tmkt
