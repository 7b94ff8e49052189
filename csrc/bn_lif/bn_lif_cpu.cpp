// tmkt::bn_lif_fwd and tmkt::bn_lif_bwd on the CPU. Sums over neurons have a fixed order whatever the threads.
#include <memory>
#include <vector>

#include "bn_lif/bn_lif_op.h"
#include "bn_lif/bn_lif_simd.h"
#include "lif/lif_cpu.h"

namespace tmkt {
namespace {

// Planes of fewer values are read neuron by neuron.
constexpr int64_t kShortestPlane = 64;

struct Cpu {
  explicit Cpu(const Tensor&) {}

  static std::vector<double> sums(const float* values, int64_t N, int64_t channels, int64_t inner,
                                  const std::vector<double>& center, int power) {
    std::vector<double> result(channels);
    TMKT_PICK_SIMD(channel_sums)(values, N, channels, inner, center.data(), power, result.data());
    return result;
  }

  // From the moments of cells of one channel: the squares within a cell, and those between the means of cells.
  void statistics(const LifArgs& args, int64_t channels, int64_t inner, float* mean, float* var) const {
    const bool planes = inner >= kShortestPlane;
    const int64_t cell = planes ? inner : args.T, cells = args.T * args.N / cell;
    const std::unique_ptr<float[]> moments(new float[2 * cells]);  // not zeroed
    std::vector<float> pivots(channels);
    TMKT_PICK_SIMD(channel_pivots)(args, channels, inner, pivots.data());
    if (planes) {
      torch::stable::parallel_for(0, cells, grain_size(cell), [&](int64_t begin, int64_t end) {
        TMKT_PICK_SIMD(plane_moments)(args, channels, inner, pivots.data(), moments.get(), begin, end);
      });
    } else {
      parallel_over_tiles(args, [&](int64_t begin, int64_t end) {
        TMKT_PICK_SIMD(neuron_moments)(args, channels, inner, pivots.data(), moments.get(), begin, end);
      });
    }
    const int64_t run = planes ? 1 : inner;  // neighbouring cells of one channel
    const double of_channel = static_cast<double>(cells / channels), values = static_cast<double>(cell);
    const std::vector<double> zero(channels);
    std::vector<double> center = sums(moments.get(), cells, channels, run, zero, 1);
    for (double& m : center) m /= of_channel;
    const std::vector<double> between = sums(moments.get(), cells, channels, run, center, 2);
    const std::vector<double> within = sums(moments.get() + cells, cells, channels, run, zero, 1);
    for (int64_t c = 0; c < channels; ++c) {
      mean[c] = static_cast<float>(pivots[c] + center[c]);
      var[c] = static_cast<float>((within[c] + values * between[c]) / (values * of_channel));
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
    const bool stream = use_stream(args);
    parallel_over_tiles(args, [&](int64_t begin, int64_t end) {
      std::vector<Line> history(args.T * kLifTile / 16);
      TMKT_PICK_SIMD(bn_lif_backward)(args, stream, history.data()->values, begin, end);
    });
  }

  void gradients(const BnLifBackwardArgs& args, const float* var, float eps, float* grad_weight, float* grad_bias,
                 float* g_mean, float* slope) const {
    const int64_t channels = args.bn.channels, inner = args.bn.inner;
    const std::vector<double> zero(channels);
    const std::vector<double> g = sums(args.sums, args.N, channels, inner, zero, 1);
    const std::vector<double> gd = sums(args.sums + args.N, args.N, channels, inner, zero, 1);
    for (int64_t c = 0; c < channels; ++c) {
      const BnGradients grad = bn_gradients(g[c], gd[c], var[c], eps, args.T * args.N / channels);
      grad_weight[c] = grad.weight;
      grad_bias[c] = grad.bias;
      g_mean[c] = grad.g_mean;
      slope[c] = grad.slope;
    }
  }

  void finish(const BnLifBackwardArgs& args) const {
    const int64_t tiles = (args.T * args.N + kLifTile - 1) / kLifTile;
    torch::stable::parallel_for(0, tiles, grain_size(kLifTile), [&](int64_t begin, int64_t end) {
      TMKT_PICK_SIMD(bn_lif_finish)(args, begin * kLifTile, std::min(end * kLifTile, args.T * args.N));
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tmkt, CPU, m) {
  m.impl("bn_lif_fwd", TORCH_BOX(&bn_lif_fwd<Cpu>));
  m.impl("bn_lif_bwd", TORCH_BOX(&bn_lif_bwd<Cpu>));
}

}  // namespace tmkt
