// Batch normalisation and lif over neurons begin..end. Compiled once per SIMD level.
#include "bn_lif/bn_lif_simd.h"

#include "bn_lif/channels_simd-inl.h"
#include "bn_lif/normalise_simd-inl.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

constexpr int kVectors = kNormalisedTile / kLanes;

// Values of a tile's channels. Backward has two rows more than forward.
template <typename Rows>
struct ChannelRows {
  const Rows& rows;
  TMKT_INLINE Floats mean(int k) const { return rows.get(0, k); }
  TMKT_INLINE Floats scale(int k) const { return rows.get(1, k); }
  TMKT_INLINE Floats bias(int k) const { return rows.get(2, k); }
  TMKT_INLINE Floats g_mean(int k) const { return rows.get(3, k); }
  TMKT_INLINE Floats slope(int k) const { return rows.get(4, k); }
};

// Stores grad_x, or g for the second pass, and sums g and g (x - mean) per neuron.
template <typename T, typename Values, int K>
struct NeuronGradients {
  static constexpr bool kParameters = false;
  const T* x;
  T* grad_x;
  int64_t N;
  bool second_pass, scaled;
  Values values;
  Floats sums[2][K];

  NeuronGradients(const BnLifBackwardArgs& args, const Values& values)
      : x(static_cast<const T*>(args.x)),
        grad_x(static_cast<T*>(args.grad_x)),
        N(args.N),
        second_pass(args.second_pass),
        scaled(!args.batch_statistics || args.second_pass),
        values(values) {
    for (int k = 0; k < K; ++k) sums[0][k] = sums[1][k] = Floats{};
  }
  template <typename Lanes>
  TMKT_INLINE void operator()(Lanes lanes, int64_t t, int k, Floats g, Words& held) {
    const Floats centered = lanes.load(x + t * N, k) - values.mean(k);
    sums[0][k] += g;
    sums[1][k] += g * centered;
    if (second_pass) g = less_statistics(g, centered, values.g_mean(k), values.slope(k));
    lanes.store(scaled ? g * values.scale(k) : g, grad_x + t * N, k, held);
  }
};

}  // namespace

void bn_lif_forward(const BnLifForwardArgs& args, bool stream, int64_t begin, int64_t end) {
  const BnArgs& bn = args.bn;
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    const StoreSpikes<T> spikes{static_cast<T*>(args.spikes), args.N};
    RowPrefetcher<T> prefetcher(args, nullptr, begin, kNormalisedTile);
    with_reset(args.lif.reset, [&](auto reset) {
      for_each_tile<LaneOrder::kContiguous, kVectors>(
          stream, begin, end, [&](auto vectors, auto lanes) __attribute__((always_inline)) {
            constexpr int K = decltype(vectors)::value;
            with_rows<3, K>(bn, lanes, {bn.mean, bn.scale, bn.bias},
                            [&](const auto& rows) __attribute__((always_inline)) {
                              const ChannelRows<std::decay_t<decltype(rows)>> values{rows};
                              scan_forward<T, K, false>(args, lanes, shared_neurons(args.lif, reset),
                                                        NormalisedInput<decltype(values)>{values}, spikes, prefetcher);
                            });
          });
    });
  });
  if (stream) StreamedVector::end();
}

void bn_lif_backward(const BnLifBackwardArgs& args, bool stream, float* history, int64_t begin, int64_t end) {
  const BnArgs& bn = args.bn;
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    RowPrefetcher<T> prefetcher(args, args.grad_spikes, begin, kNormalisedTile);
    with_backward_variant<T>(args, [&](auto reset, auto variant) {
      constexpr BackwardVariant kVariant = decltype(variant)::value;
      const auto neurons = shared_neurons(args.lif, reset, detach_of<kVariant>(args));
      const LoadSpikeGradients<T, kVariant != BackwardVariant::kAnything> gradients{
          static_cast<const T*>(args.grad_spikes), args.N};
      for_each_tile<LaneOrder::kContiguous, kVectors>(
          stream, begin, end, [&](auto vectors, auto lanes) __attribute__((always_inline)) {
            constexpr int K = decltype(vectors)::value;
            with_rows<5, K>(bn, lanes, {bn.mean, bn.scale, bn.bias, args.g_mean, args.slope},
                            [&](const auto& rows) __attribute__((always_inline)) {
                              const ChannelRows<std::decay_t<decltype(rows)>> values{rows};
                              NeuronGradients<T, decltype(values), K> sink(args, values);
                              scan_backward<T, kVariant, K>(args, lanes, neurons,
                                                            NormalisedInput<decltype(values)>{values}, gradients, sink,
                                                            prefetcher, history);
                              Words held{};
                              for (int k = 0; k < K; ++k) {
                                for (int i = 0; i < 2; ++i) {
                                  lanes.store(sink.sums[i][k], args.sums + i * args.N, k, held);
                                }
                              }
                            });
          });
    });
  });
  if (stream) StreamedVector::end();
}

void bn_lif_finish(const BnLifBackwardArgs& args, int64_t begin, int64_t end) {
  const BnArgs& bn = args.bn;
  const float* x = static_cast<const float*>(args.x);
  float* grad_x = static_cast<float*>(args.grad_x);
  for_each_tile<LaneOrder::kContiguous, kVectors>(
      false, begin, end, [&](auto vectors, auto lanes) __attribute__((always_inline)) {
        constexpr int K = decltype(vectors)::value;
        with_rows<4, K>(bn, lanes, {bn.mean, bn.scale, args.g_mean, args.slope},
                        [&](const auto& rows) __attribute__((always_inline)) {
                          Words held{};
                          for (int k = 0; k < K; ++k) {
                            const Floats centered = lanes.load(x, k) - rows.get(0, k);
                            const Floats g =
                                less_statistics(lanes.load(grad_x, k), centered, rows.get(2, k), rows.get(3, k));
                            lanes.store(rows.get(1, k) * g, grad_x, k, held);
                          }
                        });
      });
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
