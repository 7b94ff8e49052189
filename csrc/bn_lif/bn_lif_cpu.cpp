// tmkt::bn_lif_fwd and tmkt::bn_lif_bwd on the CPU. The order of sums does not depend on the number of threads.
#include <memory>
#include <vector>

#include "bn_lif/bn_lif_op.h"
#include "bn_lif/bn_lif_simd.h"
#include "bn_lif/bn_planes_simd.h"
#include "bn_lif/statistics_simd.h"
#include "scan/scan_cpu.h"

namespace tmkt {
namespace {

// Smaller planes are processed neuron by neuron, because the tiles of a plane would be too short.
constexpr int64_t kShortestPlane = 64;

struct Cpu {
  explicit Cpu(const Tensor&) {}

  void forward(const BnLifForwardArgs& args) const {
    const BnArgs& bn = args.bn;
    if (args.prepare.batch_mean) statistics(args, bn, args.prepare.batch_mean, args.prepare.batch_var);
    scale(args.prepare, bn.channels);
    if (!in_planes(bn)) {
      return parallel_over_tiles(args, [&](int64_t begin, int64_t end) {
        TMKT_PICK_SIMD(bn_lif_forward)(args, use_stream(args), begin, end);
      });
    }
    parallel_over_planes(args, bn, [&](int64_t begin, int64_t end) {
      std::vector<CacheLine> pooled(pooled_lines(args, bn));
      TMKT_PICK_SIMD(planes_forward)(args, stream_planes(args, bn), values_of(pooled), begin, end);
    });
  }

  void backward(BnLifBackwardArgs args) const {
    const BnArgs& bn = args.bn;
    scale(args.prepare, bn.channels);
    if (in_planes(bn)) {
      backward_of_planes(args);
    } else {
      backward_of_neurons(args);
    }
  }

 private:
  // Pooling works on planes, however small.
  static bool in_planes(const BnArgs& bn) { return bn.inner >= kShortestPlane || bn.pool_width > 0; }

  template <typename F>
  static void parallel_over_planes(const ScanArgs& args, const BnArgs& bn, const F& work) {
    torch::stable::parallel_for(0, args.N / bn.inner, grain_size(args.T * bn.inner), work);
  }

  // Whether to stream outputs plane by plane, each of which must be aligned like a row.
  static bool stream_planes(const ScanArgs& args, const BnArgs& bn) {
    return use_stream(args) && bn.inner % kStreamMultiple == 0;
  }

  static int64_t pooled_lines(const ScanArgs& args, const BnArgs& bn) {
    return bn.pool_width > 0 ? pooled_floats(args.T, bn.inner) / 16 : 0;
  }
  static float* values_of(std::vector<CacheLine>& lines) { return lines.empty() ? nullptr : lines[0].values; }

  static void backward_of_planes(BnLifBackwardArgs& args) {
    const BnArgs& bn = args.bn;
    const int64_t planes = bn.inner > 0 ? args.N / bn.inner : 0;
    std::vector<double> of_planes(2 * planes);
    const auto pass = [&] {
      parallel_over_planes(args, bn, [&](int64_t begin, int64_t end) {
        std::vector<CacheLine> pooled(args.grad_spikes ? pooled_lines(args, bn) : 0),
            history(2 * args.T * kPlaneTile / 16);
        TMKT_PICK_SIMD(planes_backward)
        (args, stream_planes(args, bn), values_of(pooled), values_of(history), of_planes.data(), begin, end);
      });
    };
    pass();
    std::vector<double> g(bn.channels), gd(bn.channels);
    for (int64_t plane = 0; plane < planes; ++plane) {
      g[plane % bn.channels] += of_planes[plane];
      gd[plane % bn.channels] += of_planes[planes + plane];
    }
    gradients(args, g, gd);
    if (!args.batch_statistics) return;
    if (args.kind != FloatKind::kFloat32) {
      args.second_pass = true;
      return pass();
    }
    torch::stable::parallel_for(0, args.T * planes, grain_size(bn.inner),
                                [&](int64_t begin, int64_t end) { TMKT_PICK_SIMD(planes_finish)(args, begin, end); });
  }

  static void backward_of_neurons(BnLifBackwardArgs& args) {
    const int64_t channels = args.bn.channels, inner = args.bn.inner;
    const std::unique_ptr<CacheLine[]> of_neurons(new CacheLine[(2 * args.N + 15) / 16 + 1]);  // not zeroed; N may be 0
    args.sums = of_neurons[0].values;
    const bool stream = use_stream(args);
    const auto pass = [&] {
      parallel_over_tiles(args, [&](int64_t begin, int64_t end) {
        std::vector<CacheLine> history(args.T * kScanTile / 16);
        TMKT_PICK_SIMD(bn_lif_backward)(args, stream, history.data()->values, begin, end);
      });
    };
    pass();
    const std::vector<double> zero(channels);
    gradients(args, sums(args.sums, args.N, channels, inner, zero, 1),
              sums(args.sums + args.N, args.N, channels, inner, zero, 1));
    if (!args.batch_statistics) return;
    if (args.kind != FloatKind::kFloat32) {
      args.second_pass = true;
      return pass();
    }
    const int64_t tiles = (args.T * args.N + kScanTile - 1) / kScanTile;
    torch::stable::parallel_for(0, tiles, grain_size(kScanTile), [&](int64_t begin, int64_t end) {
      TMKT_PICK_SIMD(bn_lif_finish)(args, begin * kScanTile, std::min(end * kScanTile, args.T * args.N));
    });
  }

  static std::vector<double> sums(const float* values, int64_t N, int64_t channels, int64_t inner,
                                  const std::vector<double>& center, int power) {
    std::vector<double> result(channels);
    TMKT_PICK_SIMD(channel_sums)(values, N, channels, inner, center.data(), power, result.data());
    return result;
  }

  // Combines the moments of a channel's cells: squares within the cells, and squares between their means.
  static void statistics(const ScanArgs& args, const BnArgs& bn, float* mean, float* var) {
    const int64_t channels = bn.channels, inner = bn.inner;
    const bool planes = in_planes(bn);
    const int64_t cell = planes ? inner : args.T, cells = args.T * args.N / cell;
    const std::unique_ptr<float[]> moments(new float[2 * cells]);  // not zeroed
    std::vector<float> pivots(channels);
    TMKT_PICK_SIMD(channel_pivots)(args, channels, inner, pivots.data());
    if (planes) {
      torch::stable::parallel_for(0, cells, grain_size(cell), [&](int64_t begin, int64_t end) {
        TMKT_PICK_SIMD(plane_moments)(args, bn, pivots.data(), moments.get(), begin, end);
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

  static void scale(const BnPrepare& p, int64_t channels) {
    for (int64_t c = 0; c < channels; ++c) {
      p.scale[c] = bn_scale(p.var[c], p.weight ? p.weight[c] : 1.0f, p.eps);
      if (p.zero_bias) p.zero_bias[c] = 0.0f;
    }
  }

  static void gradients(const BnLifBackwardArgs& args, const std::vector<double>& g, const std::vector<double>& gd) {
    for (int64_t c = 0; c < args.bn.channels; ++c) {
      const int64_t count = args.T * args.N / args.bn.channels;
      const BnGradients grad = bn_gradients(g[c], gd[c], args.prepare.var[c], args.prepare.eps, count);
      args.grad_weight[c] = grad.weight;
      args.grad_bias[c] = grad.bias;
      args.g_mean[c] = grad.g_mean;
      args.slope[c] = grad.slope;
    }
  }
};

}  // namespace

// The schemas of tmkt_kernels/ops/bn_lif/op.py, see lif_cpu.cpp.
#define TMKT_BN_LIF_PARAMS                                                                                      \
  "SymInt channels, SymInt inner, SymInt pool_width, float eps, float a, float b, float c, float v_threshold, " \
  "float v_reset, int reset, int surrogate, float alpha, float beta, bool detach_reset"
STABLE_TORCH_LIBRARY_FRAGMENT(tmkt, m) {
  m.def(
      "bn_lif_fwd(Tensor x, Tensor? v_init, Tensor? weight, Tensor? bias, Tensor? mean, Tensor? "
      "var, " TMKT_BN_LIF_PARAMS ", bool return_v) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "bn_lif_bwd(Tensor? grad_spikes, Tensor? grad_v_last, Tensor? grad_v_seq, Tensor x, Tensor? v_init, "
      "Tensor? weight, Tensor? bias, Tensor mean, Tensor var, bool batch_statistics, " TMKT_BN_LIF_PARAMS
      ") -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(tmkt, CPU, m) {
  m.impl("bn_lif_fwd", TORCH_BOX(&bn_lif_fwd<Cpu>));
  m.impl("bn_lif_bwd", TORCH_BOX(&bn_lif_bwd<Cpu>));
}

}  // namespace tmkt
