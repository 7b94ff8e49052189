// lif over neurons begin..end. Compiled once per SIMD level.
#include "lif/lif_simd.h"

#include "lif/lif_neurons_simd-inl.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

constexpr int kVectors = kScanTile / kLanes;

// Stores grad_x, and sums the gradients of the neurons' parameters.
template <typename T, bool kSums, int K>
struct LifGradients : StoreGradients<T> {
  static constexpr bool kParameters = kSums;
  float* grad_coefficients;
  LifParams<Floats> sums[kSums ? K : 1];

  explicit LifGradients(const LifBackwardArgs& args)
      : StoreGradients<T>{static_cast<T*>(args.grad_x), args.N},
        grad_coefficients(kSums ? args.grad_coefficients : nullptr) {
    if (K > 1 && !wants_parameters()) return;  // for K = 1, GCC would warn that the sums are not initialised
    for (auto& sum : sums) sum = LifParams<Floats>{};
  }
  TMKT_INLINE bool wants_parameters() const { return kSums && grad_coefficients; }
  TMKT_INLINE void parameters(int k, const LifParams<Floats>& more) { add(sums[k], more); }

  template <typename Lanes>
  TMKT_INLINE void store_sums(Lanes lanes) const {
    if (!wants_parameters()) return;
    Words held{};
    for (int k = 0; k < K; ++k) {
      const Floats rows[kLifParams] = {sums[k].a, sums[k].b, sums[k].c, sums[k].v_threshold, sums[k].v_reset};
      for (int i = 0; i < kLifParams; ++i) lanes.store(rows[i], grad_coefficients + i * this->N, k, held);
    }
  }
};

}  // namespace

void lif_forward(const LifForwardArgs& args, bool stream, int64_t begin, int64_t end) {
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    const StoreSpikes<T> spikes{static_cast<T*>(args.spikes), args.N};
    RowPrefetcher<T> prefetcher(args, nullptr, begin, kScanTile);
    with_reset(args.lif.reset, [&](auto reset) {
      for_each_tile<LaneOrder::kContiguous, kVectors>(
          stream, begin, end, [&](auto vectors, auto lanes) __attribute__((always_inline)) {
            constexpr int K = decltype(vectors)::value;
            with_neurons<K>(args.lif, lanes, reset, std::true_type{},
                            [&](const auto& neurons) __attribute__((always_inline)) {
                              scan_forward<T, K, false>(args, lanes, neurons, PlainInput{}, spikes, prefetcher);
                            });
          });
    });
  });
  if (stream) StreamedVector::end();
}

void lif_backward(const LifBackwardArgs& args, bool stream, float* history, int64_t begin, int64_t end) {
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    RowPrefetcher<T> prefetcher(args, args.grad_spikes, begin, kScanTile);
    with_backward_variant<T>(args, [&](auto reset, auto variant) {
      constexpr BackwardVariant kVariant = decltype(variant)::value;
      constexpr bool kPlain = kVariant != BackwardVariant::kAnything;
      const auto detach = detach_of<kVariant>(args);
      const LoadSpikeGradients<T, kPlain> gradients{static_cast<const T*>(args.grad_spikes), args.N};
      for_each_tile<LaneOrder::kContiguous, kVectors>(
          stream, begin, end, [&](auto vectors, auto lanes) __attribute__((always_inline)) {
            constexpr int K = decltype(vectors)::value;
            const auto run = [&](const auto& neurons) __attribute__((always_inline)) {
              LifGradients<T, !kPlain, K> sink(args);
              scan_backward<T, kVariant, K>(args, lanes, neurons, PlainInput{}, gradients, sink, prefetcher, history);
              sink.store_sums(lanes);
            };
            if constexpr (kPlain) {
              run(shared_neurons(args.lif, reset, detach));
            } else {
              with_neurons<K>(args.lif, lanes, reset, detach, run);
            }
          });
    });
  });
  if (stream) StreamedVector::end();
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
