// Batch normalisation and lif over neurons begin..end. Compiled once per SIMD level.
#include "bn_lif/bn_lif_simd.h"

#include "lif/lif_tile_simd.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

typedef double Doubles __attribute__((vector_size(8 * kLanes)));

// Half a tile of lif: the rows below are as much again to keep in the first-level cache.
constexpr int kVectors = kTileVectors / 2;

// Values of K vectors of neurons from n on, from their channels: each neuron its own.
template <int kRows, int K>
struct SpreadRows {
  alignas(64) float rows[kRows][K * kLanes];

  SpreadRows(const BnArgs& bn, int64_t n, int64_t count, const float* const (&values)[kRows]) {
    if (count < K * kLanes) memset(rows, 0, sizeof(rows));
    for (int i = 0; i < kRows; ++i) spread_channels(values[i], bn.channels, bn.inner, n, count, rows[i]);
  }
  TMKT_INLINE Floats get(int row, int k) const { return TMKT_SIMD::load(rows[row] + k * kLanes); }
};

// The same where no vector straddles two channels: one value for each vector.
template <int kRows, int K>
struct VectorRows {
  float rows[kRows][K];

  VectorRows(const BnArgs& bn, int64_t n, int64_t, const float* const (&values)[kRows]) {
    for (int k = 0; k < K; ++k) {
      const int64_t channel = (n + k * kLanes) / bn.inner % bn.channels;
      for (int i = 0; i < kRows; ++i) rows[i][k] = values[i][channel];
    }
  }
  TMKT_INLINE Floats get(int row, int k) const { return Floats{} + rows[row][k]; }
};

template <typename Rows>
struct NormalisedInput {
  const Rows& rows;  // mean, scale, bias
  TMKT_INLINE Floats operator()(int k, Floats x) const {
    return (x - rows.get(0, k)) * rows.get(1, k) + rows.get(2, k);
  }
};

// Calls f(rows) with the rows of K vectors from n on.
template <int kRows, int K, typename F>
TMKT_INLINE void with_rows(const BnArgs& bn, int64_t n, int64_t count, const float* const (&values)[kRows], F f) {
  if (bn.inner % kLanes == 0) {
    f(VectorRows<kRows, K>(bn, n, count, values));
  } else {
    f(SpreadRows<kRows, K>(bn, n, count, values));
  }
}

}  // namespace

void channel_pivots(const LifArgs& args, int64_t channels, int64_t inner, float* pivots) {
  with_float(args.kind, [&](auto type) {
    const auto* x = static_cast<const typename decltype(type)::type*>(args.x);
    for (int64_t c = 0; c < channels; ++c) pivots[c] = PartOfVector{1}.load(x + c * inner)[0];
  });
}

void neuron_moments(const LifArgs& args, int64_t channels, int64_t inner, const float* pivots, float* moments,
                    int64_t begin, int64_t end) {
  Ahead ahead(args.T, begin, kVectors * kLanes);
  const BnArgs bn{channels, inner, pivots, nullptr, nullptr, 0};
  const float each = 1.0f / static_cast<float>(args.T);
  with_float(args.kind, [&](auto type) {
    const auto* x = static_cast<const typename decltype(type)::type*>(args.x);
    for_each_tile<kVectors>(
        false, begin, end, [&](auto vectors, auto access, int64_t n) __attribute__((always_inline)) {
          constexpr int K = decltype(vectors)::value;
          const SpreadRows<1, K> pivot(bn, n, (K - 1) * kLanes + access.width, {pivots});
          Floats mean[K], squares[K];
          for (int k = 0; k < K; ++k) mean[k] = squares[k] = Floats{};
          for (int64_t t = 0; t < args.T; ++t) {
            const auto* soon = x + ahead.row() * args.N + ahead.n();
            for (int k = 0; k < K; ++k) {
              prefetch(soon, k);
              mean[k] += access.load(x + t * args.N + n + k * kLanes) - pivot.get(0, k);
            }
            ahead.next(K * kLanes);
          }
          for (int k = 0; k < K; ++k) mean[k] *= each;
          for (int64_t t = 0; t < args.T; ++t) {  // the tile is in the cache now
            for (int k = 0; k < K; ++k) {
              const Floats d = (access.load(x + t * args.N + n + k * kLanes) - pivot.get(0, k)) - mean[k];
              squares[k] += d * d;
            }
          }
          for (int k = 0; k < K; ++k) {
            store(access, mean[k], moments + n + k * kLanes);
            store(access, squares[k], moments + args.N + n + k * kLanes);
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

void bn_lif_forward(const BnLifForwardArgs& args, bool stream, int64_t begin, int64_t end) {
  Ahead ahead(args.T, begin, kVectors * kLanes);
  const BnArgs& bn = args.bn;
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    with_reset(args.reset, [&](auto reset) {
      for_each_tile<kVectors>(
          stream, begin, end, [&](auto vectors, auto access, int64_t n) __attribute__((always_inline)) {
            constexpr int K = decltype(vectors)::value;
            const int64_t count = (K - 1) * kLanes + access.width;
            with_rows<3, K>(bn, n, count, {bn.mean, bn.scale, bn.bias},
                            [&](const auto& rows) __attribute__((always_inline)) {
                              forward_tile<T, K>(args, reset, access, shared_params(args),
                                                 NormalisedInput<std::decay_t<decltype(rows)>>{rows}, ahead, n);
                            });
          });
    });
  });
}

void bn_lif_backward(const BnLifBackwardArgs& args, bool stream, float* history, int64_t begin, int64_t end) {
  Ahead ahead(args.grad_spikes ? 2 * args.T : args.T, begin, kVectors * kLanes);
  auto* kept = reinterpret_cast<Floats*>(history);
  const BnArgs& bn = args.bn;
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* x = static_cast<const T*>(args.x);
    T* grad_x = static_cast<T*>(args.grad_x);
    with_backward_variant<T>(args, [&](auto reset, auto asked) {
      for_each_tile<kVectors>(
          stream, begin, end, [&](auto vectors, auto access, int64_t n) __attribute__((always_inline)) {
            constexpr int K = decltype(vectors)::value;
            const int64_t count = (K - 1) * kLanes + access.width;
            with_rows<5, K>(bn, n, count, {bn.mean, bn.scale, bn.bias, args.g_mean, args.slope},
                            [&](const auto& rows) __attribute__((always_inline)) {
                              const NormalisedInput<std::decay_t<decltype(rows)>> input{rows};
                              Floats sums[2][K];
                              for (int k = 0; k < K; ++k) sums[0][k] = sums[1][k] = Floats{};
                              const bool again = args.again, scaled = !args.batch_statistics || again;
                              const auto sink = [=, &rows, &sums](int k, int64_t at, Floats g) {
                                const Floats centered = access.load(x + at) - rows.get(0, k);
                                sums[0][k] += g;
                                sums[1][k] += g * centered;
                                if (again) g = g - rows.get(3, k) - centered * rows.get(4, k);
                                store(access, scaled ? g * rows.get(1, k) : g, grad_x + at);
                              };
                              backward_tile<T, decltype(asked)::value, K>(args, reset, access, shared_params(args),
                                                                          input, sink, ahead, kept, n);
                              for (int k = 0; k < K; ++k) {
                                for (int i = 0; i < 2; ++i)
                                  store(access, sums[i][k], args.sums + i * args.N + n + k * kLanes);
                              }
                            });
          });
    });
  });
}

void bn_lif_finish(const BnLifBackwardArgs& args, int64_t begin, int64_t end) {
  const BnArgs& bn = args.bn;
  const float* x = static_cast<const float*>(args.x);
  float* grad_x = static_cast<float*>(args.grad_x);
  for_each_tile<kVectors>(false, begin, end, [&](auto vectors, auto access, int64_t n) __attribute__((always_inline)) {
    constexpr int K = decltype(vectors)::value;
    const int64_t count = (K - 1) * kLanes + access.width;
    with_rows<4, K>(bn, n, count, {bn.mean, bn.scale, args.g_mean, args.slope},
                    [&](const auto& rows) __attribute__((always_inline)) {
                      for (int k = 0; k < K; ++k) {
                        const int64_t at = n + k * kLanes;
                        const Floats centered = access.load(x + at) - rows.get(0, k);
                        const Floats g = access.load(grad_x + at) - rows.get(2, k) - centered * rows.get(3, k);
                        store(access, rows.get(1, k) * g, grad_x + at);
                      }
                    });
  });
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
