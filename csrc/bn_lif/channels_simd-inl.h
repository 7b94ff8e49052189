// Channel values of a tile of neurons, for channels that are short runs or lie side by side.
#pragma once

#include "bn_lif/bn_lif_args.h"
#include "common/lanes_simd-inl.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

// Half of kScanTile, because the rows below take the same amount of first-level cache again.
constexpr int kNormalisedTile = kScanTile / 2;

// Values of K vectors of neurons from n on, one per neuron.
template <int kRows, int K>
struct SpreadRows {
  alignas(64) float rows[kRows][K * kLanes];

  SpreadRows(int64_t channels, int64_t inner, int64_t n, int64_t count, const float* const (&values)[kRows]) {
    if (count < K * kLanes) memset(rows, 0, sizeof(rows));
    for (int i = 0; i < kRows; ++i) spread_channels(values[i], channels, inner, n, count, rows[i]);
  }
  TMKT_INLINE Floats get(int row, int k) const { return TMKT_SIMD::load(rows[row] + k * kLanes); }
};

// Values of K vectors of neurons where no vector straddles two channels: one per vector.
template <int kRows, int K>
struct VectorRows {
  float rows[kRows][K];

  VectorRows(int64_t channels, int64_t inner, int64_t n, int64_t, const float* const (&values)[kRows]) {
    for (int k = 0; k < K; ++k) {
      const int64_t channel = (n + k * kLanes) / inner % channels;
      for (int i = 0; i < kRows; ++i) rows[i][k] = values[i][channel];
    }
  }
  TMKT_INLINE Floats get(int row, int k) const { return Floats{} + rows[row][k]; }
};

// Calls f(rows) with the rows of a tile.
template <int kRows, int K, typename Lanes, typename F>
TMKT_INLINE void with_rows(const BnArgs& bn, Lanes lanes, const float* const (&values)[kRows], F f) {
  const int64_t count = count_of<K>(lanes);
  if (bn.inner % kLanes == 0) {
    f(VectorRows<kRows, K>(bn.channels, bn.inner, lanes.n, count, values));
  } else {
    f(SpreadRows<kRows, K>(bn.channels, bn.inner, lanes.n, count, values));
  }
}

}  // namespace
}  // namespace TMKT_SIMD
}  // namespace tmkt
