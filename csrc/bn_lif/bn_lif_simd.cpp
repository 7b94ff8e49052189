// Batch normalisation and lif over neurons begin..end. Compiled once per SIMD level.
#include "bn_lif/bn_lif_simd.h"

#include "lif/lif_tile_simd.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

typedef double Doubles __attribute__((vector_size(8 * kLanes)));

// Rows of values of K vectors of neurons, spread from their channels.
template <int kRows, int K>
struct ChannelRows {
  alignas(64) float rows[kRows][K * kLanes];

  ChannelRows(const BnArgs& bn, int64_t n, int64_t count, const float* const (&values)[kRows]) {
    if (count < K * kLanes) memset(rows, 0, sizeof(rows));
    for (int i = 0; i < kRows; ++i) spread_channels(values[i], bn.channels, bn.inner, n, count, rows[i]);
  }
  TMKT_INLINE Floats get(int row, int k) const { return TMKT_SIMD::load(rows[row] + k * kLanes); }
};

template <typename Rows>
struct NormalisedInput {
  const Rows& rows;  // mean, scale, bias
  TMKT_INLINE Floats operator()(int k, Floats x) const {
    return (x - rows.get(0, k)) * rows.get(1, k) + rows.get(2, k);
  }
};

}  // namespace

void bn_moments(const LifArgs& args, float* moments, int64_t begin, int64_t end) {
  Ahead ahead(args.T, begin, kLifTile);
  const float each = 1.0f / static_cast<float>(args.T);
  with_float(args.kind, [&](auto type) {
    const auto* x = static_cast<const typename decltype(type)::type*>(args.x);
    for_each_tile(false, begin, end, [&](auto vectors, auto access, int64_t n) {
      constexpr int K = decltype(vectors)::value;
      Floats mean[K], squares[K];
      for (int k = 0; k < K; ++k) mean[k] = squares[k] = Floats{};
      for (int64_t t = 0; t < args.T; ++t) {
        const auto* soon = x + ahead.row() * args.N + ahead.n();
        for (int k = 0; k < K; ++k) {
          prefetch(soon, k);
          mean[k] += access.load(x + t * args.N + n + k * kLanes);
        }
        ahead.next();
      }
      for (int k = 0; k < K; ++k) mean[k] *= each;
      for (int64_t t = 0; t < args.T; ++t) {  // the tile is in the cache now
        for (int k = 0; k < K; ++k) {
          const Floats d = access.load(x + t * args.N + n + k * kLanes) - mean[k];
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
  Ahead ahead(args.T, begin, kLifTile);
  with_float(args.kind, [&](auto type) {
    with_reset(args.reset, [&](auto reset) {
      for_each_tile(stream, begin, end, [&](auto vectors, auto access, int64_t n) {
        constexpr int K = decltype(vectors)::value;
        using Rows = ChannelRows<3, K>;
        const Rows rows(args.bn, n, (K - 1) * kLanes + access.width, {args.bn.mean, args.bn.scale, args.bn.bias});
        forward_tile<typename decltype(type)::type, decltype(reset)::value, K>(args, access, shared_params(args),
                                                                               NormalisedInput<Rows>{rows}, ahead, n);
      });
    });
  });
}

void bn_lif_backward(const BnLifBackwardArgs& args, bool stream, float* history, int64_t begin, int64_t end) {
  Ahead ahead(args.grad_spikes ? 2 * args.T : args.T, begin, kLifTile);
  auto* kept = reinterpret_cast<Floats*>(history);
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* x = static_cast<const T*>(args.x);
    T* grad_x = static_cast<T*>(args.grad_x);
    with_reset(args.reset, [&](auto reset) {
      for_each_tile(stream, begin, end, [&](auto vectors, auto access, int64_t n) {
        constexpr int K = decltype(vectors)::value;
        using Rows = ChannelRows<5, K>;
        const BnArgs& bn = args.bn;
        const Rows rows(
            bn, n, (K - 1) * kLanes + access.width,
            {bn.mean, bn.scale, bn.bias, args.sums ? bn.mean : args.g_mean, args.sums ? bn.mean : args.slope});
        const NormalisedInput<Rows> input{rows};
        const auto tile = [&](const auto& sink) {
          backward_tile<T, decltype(reset)::value, K>(args, access, shared_params(args), input, sink, ahead, kept, n);
        };
        if (!args.sums) {
          tile([=, &rows](int k, int64_t at, Floats g) {
            const Floats centered = access.load(x + at) - rows.get(0, k);
            store(access, rows.get(1, k) * (g - rows.get(3, k) - centered * rows.get(4, k)), grad_x + at);
          });
          return;
        }
        Floats sums[2][K];
        for (int k = 0; k < K; ++k) sums[0][k] = sums[1][k] = Floats{};
        tile([=, &rows, &sums](int k, int64_t at, Floats g) {
          sums[0][k] += g;
          sums[1][k] += g * (access.load(x + at) - rows.get(0, k));
        });
        for (int k = 0; k < K; ++k) {
          for (int i = 0; i < 2; ++i) store(access, sums[i][k], args.sums + i * args.N + n + k * kLanes);
        }
      });
    });
  });
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
