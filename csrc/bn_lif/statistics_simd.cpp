// Statistics per channel of bn_lif's input. Compiled once per SIMD level.
#include "bn_lif/statistics_simd.h"

#include "bn_lif/channels_simd-inl.h"
#include "scan/scan_simd-inl.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

typedef double Doubles __attribute__((vector_size(8 * kLanes)));

struct Moments {
  float mean, squares;  // mean relative to the pivot, squared deviations from the mean
};

template <typename T>
TMKT_INLINE Moments moments_around(const T* plane, int64_t inner, float pivot) {
  constexpr int kSums = 4;  // independent sums, so that an addition need not wait for the previous one
  Floats sums[kSums] = {}, squares[kSums] = {};
  const auto add = [&](int k, Floats x) __attribute__((always_inline)) {
    const Floats d = x - pivot;
    sums[k] += d;
    squares[k] += d * d;
  };
  int64_t i = 0;
  for (; i + kSums * kLanes <= inner; i += kSums * kLanes) {
    for (int k = 0; k < kSums; ++k) add(k, TMKT_SIMD::load(plane + i + k * kLanes));
  }
  for (; i + kLanes <= inner; i += kLanes) add(0, TMKT_SIMD::load(plane + i));
  float sum = 0.0f, square = 0.0f;
  if (i < inner) {
    const Floats d = PartOfVector{inner - i}.load(plane + i) - pivot;
    for (int64_t j = 0; j < inner - i; ++j) {
      sum += d[j];
      square += d[j] * d[j];
    }
  }
  const Floats all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  const Floats all_squares = (squares[0] + squares[1]) + (squares[2] + squares[3]);
  for (int j = 0; j < kLanes; ++j) {
    sum += all[j];
    square += all_squares[j];
  }
  const float mean = sum / static_cast<float>(inner);
  return {mean, square - sum * mean};
}

}  // namespace

void channel_pivots(const ScanArgs& args, int64_t channels, int64_t inner, float* pivots) {
  with_float(args.kind, [&](auto type) {
    const auto* x = static_cast<const typename decltype(type)::type*>(args.x);
    for (int64_t c = 0; c < channels; ++c) pivots[c] = PartOfVector{1}.load(x + c * inner)[0];
  });
}

void neuron_moments(const ScanArgs& args, int64_t channels, int64_t inner, const float* pivots, float* moments,
                    int64_t begin, int64_t end) {
  const float each = 1.0f / static_cast<float>(args.T);
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* x = static_cast<const T*>(args.x);
    RowPrefetcher<T> prefetcher(args, nullptr, begin, kNormalisedTile);
    for_each_tile<LaneOrder::kContiguous, kNormalisedTile / kLanes>(
        false, begin, end, [&](auto vectors, auto lanes) __attribute__((always_inline)) {
          constexpr int K = decltype(vectors)::value;
          const SpreadRows<1, K> pivot(channels, inner, lanes.n, count_of<K>(lanes), {pivots});
          Floats mean[K], squares[K];
          for (int k = 0; k < K; ++k) mean[k] = squares[k] = Floats{};
          for (int64_t t = 0; t < args.T; ++t) {
            const T* row = x + t * args.N;
            const auto prefetch_vector = prefetcher.next_row(K * kLanes);
            for (int k = 0; k < K; ++k) {
              prefetch_vector(k);
              mean[k] += lanes.load(row, k) - pivot.get(0, k);
            }
          }
          for (int k = 0; k < K; ++k) mean[k] *= each;
          for (int64_t t = 0; t < args.T; ++t) {  // the tile is in the cache now
            const T* row = x + t * args.N;
            for (int k = 0; k < K; ++k) {
              const Floats d = (lanes.load(row, k) - pivot.get(0, k)) - mean[k];
              squares[k] += d * d;
            }
          }
          Words held{};
          for (int k = 0; k < K; ++k) {
            lanes.store(mean[k], moments, k, held);
            lanes.store(squares[k], moments + args.N, k, held);
          }
        });
  });
}

void channel_sums(const float* values, int64_t N, int64_t channels, int64_t inner, const double* center, int power,
                  double* sums) {
  const bool squared = power == 2;
  for (int64_t c = 0; c < channels; ++c) sums[c] = 0.0;
  for (int64_t n = 0; n < N; n += channels * inner) {
    if (inner == 1) {
      for (int64_t c = 0; c < channels; ++c) {
        const double d = values[n + c] - center[c];
        sums[c] += squared ? d * d : d;
      }
      continue;
    }
    for (int64_t c = 0; c < channels; ++c) {
      const float* run = values + n + c * inner;
      Doubles lanes{};
      int64_t i = 0;
      for (; i + kLanes <= inner; i += kLanes) {
        const Doubles d = __builtin_convertvector(TMKT_SIMD::load(run + i), Doubles) - center[c];
        lanes += squared ? d * d : d;
      }
      double sum = 0.0;
      for (int j = 0; j < kLanes; ++j) sum += lanes[j];
      for (; i < inner; ++i) {
        const double d = run[i] - center[c];
        sum += squared ? d * d : d;
      }
      sums[c] += sum;
    }
  }
}

void plane_moments(const ScanArgs& args, const BnArgs& bn, const float* pivots, float* moments, int64_t begin,
                   int64_t end) {
  const int64_t cells = args.T * args.N / bn.inner;
  with_float(args.kind, [&](auto type) {
    const auto* x = static_cast<const typename decltype(type)::type*>(args.x);
    for (int64_t cell = begin; cell < end; ++cell) {
      const auto* plane = x + cell * bn.inner;
      const float pivot = pivots[cell % bn.channels];
      Moments of = moments_around(plane, bn.inner, pivot);
      if (of.mean * of.mean * static_cast<float>(bn.inner) > 16.0f * of.squares) {
        // The pivot is far outside the plane's own spread, so the squares have lost precision. Repeat around the mean.
        const float middle = pivot + of.mean;  // rounded; the second mean corrects it
        of = moments_around(plane, bn.inner, middle);
        of.mean += middle - pivot;
      }
      moments[cell] = of.mean;
      moments[cells + cell] = of.squares;
    }
  });
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
