// bn_lif for inputs with H x W: one plane of a sample and channel at a time, so that mean, scale and bias are scalars.
// Compiled once per SIMD level.
#include "bn_lif/bn_planes_simd.h"

#include "bn_lif/normalise_simd-inl.h"
#include "bn_lif/pool_simd-inl.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

// The channel of one plane.
struct ChannelValues {
  float mean_, scale_, bias_;
  TMKT_INLINE float mean(int) const { return mean_; }
  TMKT_INLINE float scale(int) const { return scale_; }
  TMKT_INLINE float bias(int) const { return bias_; }

  ChannelValues(const BnArgs& bn, int64_t plane)
      : mean_(bn.mean[plane % bn.channels]),
        scale_(bn.scale[plane % bn.channels]),
        bias_(bn.bias[plane % bn.channels]) {}
};

// NormalisedInput that also keeps x - mean [T, K]. Reading x again would be slower, because T rows at a distance of a
// power of two evict one another from the cache.
template <int K>
struct CenteredInput {
  ChannelValues channel;
  Floats* centered;
  TMKT_INLINE Floats operator()(int64_t t, int k, Floats x) const {
    centered[t * K + k] = x - channel.mean(k);
    return centered[t * K + k] * channel.scale(k) + channel.bias(k);
  }
};

// Stores the spikes of a plane, or collects them in `pooled` until the plane is complete and can be pooled.
template <typename T>
struct PlaneSpikes {
  T* spikes;  // [T, N]
  int64_t N;
  float* pooled;       // [T, row], or null
  int64_t row, first;  // first: the plane's first neuron

  template <typename Lanes>
  TMKT_INLINE void operator()(Lanes lanes, int64_t t, int k, Ints fired, Words& held) const {
    if (pooled) {
      write(spike_bits<float>(fired), pooled + t * row + (lanes.n - first) + k * kLanes);
    } else {
      lanes.store_spikes(fired, spikes + t * N, k, held);
    }
  }
};

// Gradients of the spikes, or of their averages spread over the spikes.
template <typename T>
struct PlaneSpikeGradients {
  const T* grad_spikes;  // [T, N], or null
  int64_t N;
  const float* pooled;  // [T, row], or null
  int64_t row, first;

  TMKT_INLINE bool present() const { return grad_spikes || pooled; }
  template <typename Lanes>
  TMKT_INLINE Floats operator()(Lanes lanes, int64_t t, int k) const {
    if (grad_spikes) return lanes.load(grad_spikes + t * N, k);
    if (pooled) return TMKT_SIMD::load(pooled + t * row + (lanes.n - first) + k * kLanes);
    return Floats{};
  }
};

// Prefetches x of the plane's next tile, and in backward the gradients of the spikes, from the last step to the first.
// The gradients are prefetched half a row aside: where they and x are a multiple of 4 KB apart, a load and a prefetch
// of the same column would delay each other (benchmarks/results/tuning.md).
template <typename T, bool kBackward>
struct PlanePrefetcher {
  const T *x, *grad_spikes;
  int64_t N;

  template <int K, typename Lanes>
  TMKT_INLINE auto forward_row(Lanes lanes, int64_t t) const {
    const int64_t at = t * N + lanes.n;
    return [at, this](int k) __attribute__((always_inline)) {
      prefetch(x + at + k * kLanes + kPlaneTile, 0);
      if (kBackward && grad_spikes) prefetch(grad_spikes + at + (k ^ K / 2) * kLanes, 0);
    };
  }
  template <int K, typename Lanes>
  TMKT_INLINE auto backward_row(Lanes, int64_t) const {
    return [](int) {};
  }
};

struct PlaneSums {
  Floats g{}, gd{};  // of g and of g (x - mean)
};

// Stores grad_x, or g for the second pass, and adds up a plane's sums.
template <typename T, int K>
struct PlaneGradients {
  static constexpr bool kParameters = false;
  T* grad_x;
  int64_t N;
  const Floats* centered;  // [T, K]
  bool second_pass;
  float factor, g_mean, slope;
  PlaneSums& sums;

  template <typename Lanes>
  TMKT_INLINE void operator()(Lanes lanes, int64_t t, int k, Floats g, Words& held) const {
    sums.g += g;
    sums.gd += g * centered[t * K + k];
    if (second_pass) g = less_statistics(g, centered[t * K + k], g_mean, slope);
    lanes.store(factor * g, grad_x + t * N, k, held);
  }
};

// Forward through the neurons of one plane.
template <typename T, LaneOrder kOrder, typename R>
void plane_forward(const BnLifForwardArgs& args, R reset, bool stream, float* pooled, int64_t plane) {
  const ChannelValues channel(args.bn, plane);
  const int64_t inner = args.bn.inner, first = plane * inner;
  const PlaneSpikes<T> spikes{static_cast<T*>(args.spikes), args.N, pooled, plane_row(inner), first};
  PlanePrefetcher<T, false> prefetcher{static_cast<const T*>(args.x), nullptr, args.N};
  const auto neurons = shared_neurons(args.lif, reset);
  for_each_plane_tile<kOrder>(
      stream, first, first + inner, [&](auto vectors, auto lanes) __attribute__((always_inline)) {
        constexpr int K = decltype(vectors)::value;
        scan_forward<T, K, true>(args, lanes, neurons, NormalisedInput<ChannelValues>{channel}, spikes, prefetcher);
      });
}

// Adjoint of the forward pass.
template <typename T, BackwardVariant kVariant, LaneOrder kOrder, typename R>
PlaneSums plane_backward(const BnLifBackwardArgs& args, R reset, bool stream, const float* pooled, float* history,
                         int64_t plane) {
  const ChannelValues channel(args.bn, plane);
  const int64_t inner = args.bn.inner, first = plane * inner, c = plane % args.bn.channels;
  const float factor = args.batch_statistics && !args.second_pass ? 1.0f : channel.scale(0);
  const float g_mean = args.second_pass ? args.g_mean[c] : 0.0f, slope = args.second_pass ? args.slope[c] : 0.0f;
  const T* grad_spikes = pooled ? nullptr : static_cast<const T*>(args.grad_spikes);
  const PlaneSpikeGradients<T> gradients{grad_spikes, args.N, pooled, plane_row(inner), first};
  PlanePrefetcher<T, true> prefetcher{static_cast<const T*>(args.x), grad_spikes, args.N};
  const auto neurons = shared_neurons(args.lif, reset, detach_of<kVariant>(args));
  PlaneSums sums;
  for_each_plane_tile<kOrder>(
      stream, first, first + inner, [&](auto vectors, auto lanes) __attribute__((always_inline)) {
        constexpr int K = decltype(vectors)::value;
        Floats* centered = reinterpret_cast<Floats*>(history) + args.T * K;
        PlaneGradients<T, K> sink{
            static_cast<T*>(args.grad_x), args.N, centered, args.second_pass, factor, g_mean, slope, sums};
        scan_backward<T, kVariant, K>(args, lanes, neurons, CenteredInput<K>{channel, centered}, gradients, sink,
                                      prefetcher, history);
      });
  return sums;
}

// Calls f(order). Interleaved vectors stream whole cache lines, of two vectors each.
template <typename T, typename F>
TMKT_INLINE void with_order(int64_t inner, const float* pooled, F f) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (inner % (2 * kStreamMultiple) == 0 && !pooled) return f(Constant<LaneOrder::kInterleaved>{});
  }
  f(Constant<LaneOrder::kContiguous>{});
}

TMKT_INLINE double lane_sum(Floats x) {
  double sum = 0.0;
  for (int j = 0; j < kLanes; ++j) sum += x[j];
  return sum;
}

}  // namespace

void planes_forward(const BnLifForwardArgs& args, bool stream, float* pooled, int64_t begin, int64_t end) {
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    with_reset(args.lif.reset, [&](auto reset) {
      with_order<T>(args.bn.inner, pooled, [&](auto order) {
        for (int64_t plane = begin; plane < end; ++plane) {
          plane_forward<T, decltype(order)::value>(args, reset, stream, pooled, plane);
          if (pooled) pool<T>(args, pooled, plane);
        }
      });
    });
  });
  if (stream) StreamedVector::end();
}

void planes_backward(const BnLifBackwardArgs& args, bool stream, float* pooled, float* history, double* sums,
                     int64_t begin, int64_t end) {
  const int64_t planes = args.N / args.bn.inner;
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    with_backward_variant<T>(args, [&](auto reset, auto variant) {
      with_order<T>(args.bn.inner, pooled, [&](auto order) {
        for (int64_t plane = begin; plane < end; ++plane) {
          if (pooled) unpool<T>(args, pooled, plane);
          const PlaneSums of_plane = plane_backward<T, decltype(variant)::value, decltype(order)::value>(
              args, reset, stream, pooled, history, plane);
          sums[plane] = lane_sum(of_plane.g);
          sums[planes + plane] = lane_sum(of_plane.gd);
        }
      });
    });
  });
  if (stream) StreamedVector::end();
}

void planes_finish(const BnLifBackwardArgs& args, int64_t begin, int64_t end) {
  const int64_t inner = args.bn.inner;
  const float* x = static_cast<const float*>(args.x);
  float* grad_x = static_cast<float*>(args.grad_x);
  for (int64_t plane = begin; plane < end; ++plane) {
    const int64_t c = plane % args.bn.channels;
    const float mean = args.bn.mean[c], scale = args.bn.scale[c], g_mean = args.g_mean[c], slope = args.slope[c];
    for_each_plane_tile<LaneOrder::kContiguous>(
        false, plane * inner, (plane + 1) * inner, [&](auto vectors, auto lanes) __attribute__((always_inline)) {
          Words held{};
          for (int k = 0; k < decltype(vectors)::value; ++k) {
            const Floats g = less_statistics(lanes.load(grad_x, k), lanes.load(x, k) - mean, g_mean, slope);
            lanes.store(scale * g, grad_x, k, held);
          }
        });
  }
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
