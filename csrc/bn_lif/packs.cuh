// Pack: the neurons that a thread of bn_lif processes together, either neighbours along a step or, where spikes are
// pooled, whole 2x2 cells.
#pragma once

#include "bn_lif/tiling.cuh"
#include "scan/scan.cuh"

namespace tmkt {
namespace {

// kWidth neighbours, all of one channel or each of its own (kOwnChannels = kWidth).
template <int kWidth, int kOwnChannels>
struct Neighbours {
  static constexpr int kOwn = kOwnChannels;
  static constexpr bool kPools = false, kCommon = kWidth > 1;  // kCommon: merits kernels of its own
  // Contiguous bytes that a block should read together. Fewer where each channel of a span adds sums to every block.
  static constexpr int64_t kRun = kOwn == 1 ? 4096 : 512;
  using Place = AdjacentNeurons<kWidth>;
  Place place;
  int64_t channel[kOwn];
  bool there;  // false past the end, in the last span

  static Tiling tiling(int64_t N, const BnArgs& bn, int64_t bytes, const Turns& in_turn) {
    if (kOwn == 1) return make_tiling(N, bn, 1, bn.inner / kWidth, bn.inner / kWidth, bn.inner * bytes, kRun, in_turn);
    const int64_t step = kWidth / std::gcd<int64_t>(bn.inner, kWidth);
    return make_tiling(N, bn, step, step * bn.inner / kWidth, bn.inner, bn.inner * bytes, kRun, in_turn);
  }

  __device__ __forceinline__ Neighbours(const Tiling& tiling, const Item& item) {
    const int64_t at = item.pack * kWidth, first = item.first_channel * tiling.inner + at;
    place.n = item.sample * tiling.of_sample + first;
    there = item.there && first < tiling.of_sample;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      channel[j] = item.first_channel + (tiling.span > 1 ? Division(at + j, tiling.inner).quotient : 0);
    }
  }
  __device__ __forceinline__ void move(const Tiling& tiling, int64_t samples) { place.n += samples * tiling.of_sample; }

  template <typename T>
  __device__ __forceinline__ StoreSpikes<T, Place> spikes(const LifForwardArgs& args, const Tiling&) const {
    return {args, place};
  }
  template <typename T>
  __device__ __forceinline__ LoadSpikeGradients<T, Place> gradients(const LifBackwardArgs& args, const Tiling&) const {
    return {args, place};
  }
};

// Two rows of kColumns neighbours, i.e. whole cells.
template <typename T, int kColumns>
struct TwoRows {
  Packed<T, kColumns> row[2];
};
template <typename T, int kColumns>
__device__ __forceinline__ void unpack(const TwoRows<T, kColumns>& rows, float (&values)[2 * kColumns]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float row[kColumns];
    unpack(rows.row[i], row);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) values[i * kColumns + j] = row[j];
  }
}

template <int kColumns>
struct WholeCells {
  static constexpr int kWidth = 2 * kColumns;
  template <typename T>
  using Row = TwoRows<T, kColumns>;
  int64_t n, width;

  template <typename T>
  __device__ __forceinline__ Row<T> fetch(const T* first) const {
    return {tmkt::fetch<kColumns>(first), tmkt::fetch<kColumns>(first + width)};
  }
  template <typename T>
  __device__ __forceinline__ void load(const T* step, float (&values)[kWidth]) const {
    unpack(fetch(step + n), values);
  }
  template <typename T>
  __device__ __forceinline__ void store(const float (&values)[kWidth], T* first) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float row[kColumns];
#pragma unroll
      for (int j = 0; j < kColumns; ++j) row[j] = values[i * kColumns + j];
      tmkt::store(row, first + i * width);
    }
  }
};

// A cell that an odd height or width may cut off. Missing pixels read as zero and are not stored.
template <typename T>
struct FourPixels {
  Packed<T, 1> pixel[4];
};
template <typename T>
__device__ __forceinline__ void unpack(const FourPixels<T>& cell, float (&values)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float pixel[1];
    unpack(cell.pixel[i], pixel);
    values[i] = pixel[0];
  }
}

struct AnyCell {
  static constexpr int kWidth = 4;
  template <typename T>
  using Row = FourPixels<T>;
  int64_t n, width;
  bool right, lower;  // whether the cell has a second column and row

  __device__ __forceinline__ bool has(int pixel) const { return (pixel % 2 == 0 || right) && (pixel < 2 || lower); }
  template <typename T>
  __device__ __forceinline__ Row<T> fetch(const T* first) const {
    Row<T> cell = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (has(i)) cell.pixel[i] = tmkt::fetch<1>(first + i / 2 * width + i % 2);
    }
    return cell;
  }
  template <typename T>
  __device__ __forceinline__ void load(const T* step, float (&values)[kWidth]) const {
    unpack(fetch(step + n), values);
  }
  template <typename T>
  __device__ __forceinline__ void store(const float (&values)[kWidth], T* first) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (has(i)) first[i / 2 * width + i % 2] = from_float<T>(values[i]);
    }
  }
};

// Stores the averages over the cells of a step, or loads their gradients.
template <typename T, int kCells>
struct StorePooled {
  T* pooled;
  int64_t step;
  bool whole;
  __device__ __forceinline__ void operator()(const float (&s)[4 * kCells]) {
    float row[kCells];
#pragma unroll
    for (int j = 0; j < kCells; ++j) {
      row[j] = 0.25f * ((s[2 * j] + s[2 * j + 1]) + (s[2 * kCells + 2 * j] + s[2 * kCells + 2 * j + 1]));
    }
    if (whole) store(row, pooled);
    pooled += step;
  }
};
template <typename T, int kCells>
struct LoadPooledGradients {
  using Row = Packed<T, kCells>;
  const T* pooled;
  int64_t step;
  bool whole;
  __device__ __forceinline__ Row fetch() {
    const Row row = whole ? tmkt::fetch<kCells>(pooled) : Row{};
    pooled -= step;
    return row;
  }
  __device__ __forceinline__ void unpack(const Row& row, float (&grad_s)[4 * kCells]) const {
    float grad[kCells];
    tmkt::unpack(row, grad);
#pragma unroll
    for (int j = 0; j < 4 * kCells; ++j) grad_s[j] = 0.25f * grad[j % (2 * kCells) / 2];
  }
};

// Whole 2x2 cells of one channel, kColumns / 2 side by side; with kColumns = 0, one cell that may be cut off.
template <int kColumns>
struct CellPack {
  static constexpr int kOwn = 1, kCells = kColumns == 0 ? 1 : kColumns / 2;
  static constexpr bool kPools = true, kCommon = kColumns > 0;
  static constexpr int64_t kRun = 4096;
  using Place = std::conditional_t<kColumns == 0, AnyCell, WholeCells<kColumns>>;
  Place place;
  int64_t channel[1], pooled;  // first pooled value
  bool there, whole;

  static Tiling tiling(int64_t N, const BnArgs& bn, int64_t bytes, const Turns& in_turn) {
    const int64_t height = bn.inner / bn.pool_width, columns = 2 * kCells;
    const int64_t packs = (height + 1) / 2 * ((bn.pool_width + columns - 1) / columns);
    return make_tiling(N, bn, 1, packs, packs, bn.inner * bytes, kRun, in_turn);
  }

  __device__ __forceinline__ CellPack(const Tiling& tiling, const Item& item) {
    const int64_t width = tiling.width, height = tiling.height, columns = 2 * kCells;
    const Division of_span(item.pack, tiling.of_channel), of_plane(of_span.remainder, (width + columns - 1) / columns);
    const int64_t row = of_plane.quotient, column = of_plane.remainder * kCells;  // of cells
    channel[0] = item.first_channel + of_span.quotient;
    there = item.there && channel[0] < tiling.channels;
    const int64_t plane = item.sample * tiling.channels + channel[0];
    place.n = plane * tiling.inner + 2 * row * width + 2 * column;
    place.width = width;
    pooled = plane * tiling.of_pooled + row * (width / 2) + column;
    whole = true;
    if constexpr (kColumns == 0) {
      place.right = 2 * column + 1 < width;
      place.lower = 2 * row + 1 < height;
      whole = place.right && place.lower;
    }
  }
  __device__ __forceinline__ void move(const Tiling& tiling, int64_t samples) {
    place.n += samples * tiling.of_sample;
    pooled += samples * tiling.channels * tiling.of_pooled;
  }

  template <typename T>
  __device__ __forceinline__ StorePooled<T, kCells> spikes(const LifForwardArgs& args, const Tiling& tiling) const {
    return {static_cast<T*>(args.spikes) + pooled, tiling.pooled_step, whole};
  }
  template <typename T>
  __device__ __forceinline__ LoadPooledGradients<T, kCells> gradients(const LifBackwardArgs& args,
                                                                      const Tiling& tiling) const {
    const T* last = static_cast<const T*>(args.grad_spikes) + (args.T - 1) * tiling.pooled_step;
    return {last + pooled, tiling.pooled_step, whole};
  }
};

// Calls f with the widest pack that x's shape and the pointers' alignment allow: kWidth neighbours at most, kMixed
// where each neuron has its own channel, and two rows of kColumns where spikes are pooled.
template <int kWidth, int kMixed, int kColumns, typename F>
void with_pack(const BnArgs& bn, bool whole_words, const F& f) {
  const int64_t width = bn.pool_width, of_step = bn.channels * bn.inner;
  if (width > 0) {
    const bool even = whole_words && bn.inner % (2 * width) == 0;
    if (even && width % kColumns == 0) return f(TypeTag<CellPack<kColumns>>{});
    if (even && width % 2 == 0) return f(TypeTag<CellPack<2>>{});
    return f(TypeTag<CellPack<0>>{});
  }
  if (whole_words && bn.inner % kWidth == 0) return f(TypeTag<Neighbours<kWidth, 1>>{});
  if (whole_words && bn.inner % 4 == 0) return f(TypeTag<Neighbours<4, 1>>{});
  if (whole_words && of_step % kMixed == 0) return f(TypeTag<Neighbours<kMixed, kMixed>>{});
  return f(TypeTag<Neighbours<1, 1>>{});
}

}  // namespace
}  // namespace tmkt
