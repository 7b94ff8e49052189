// How bn_lif deals out neurons to blocks and threads, and adds up over the neurons of a channel.
//
// A thread takes a pack of neurons: neighbours along a step, or whole 2x2 cells where spikes are pooled. It goes from
// sample to sample with it, at the same place in the same channel, so that what a channel's sums cost is spread over
// many neurons. The packs of a block lie in a span of channels, one or as many as make long accesses, and in as many
// samples as fill its threads.
//
//   x[t]  sample 0 | channel 0 | channel 1 | channel 2 | ..      a span of 2 channels, 2 samples at once: the packs
//         sample 1 | channel 0 | channel 1 | channel 2 | ..      of a block are in channels 0 and 1 of samples 0
//         sample 2 | channel 0 | channel 1 | channel 2 | ..      and 1, then of two samples further on, ..
#pragma once

#include <algorithm>
#include <numeric>

#include "bn_lif/bn_lif_args.h"
#include "lif/lif_tile.cuh"

namespace tmkt {
namespace {

struct Tiling {
  int64_t samples, channels, inner;
  int64_t of_sample;   // values of a sample
  int64_t span;        // channels of a block
  int64_t packs;       // of a span, in a sample
  int64_t of_channel;  // packs of a channel, in a sample; or neurons, where a pack holds several channels
  int64_t at_once;     // samples that a block has side by side,
  int depth;           // and one after another
  int64_t stride;      // samples from one to the next: all blocks together then read one part of x at any time
  int64_t spans, slices, groups;   // blocks: the packs of a span are cut into slices, the samples into groups
  int lanes;                       // threads that add up one channel
  int64_t height, width;           // of a plane whose spikes are pooled
  int64_t of_pooled, pooled_step;  // values of a pooled plane, and of all of them

  int64_t blocks() const { return spans * slices * groups; }
  TMKT_INLINE int64_t sets() const { return slices * groups; }  // of sums, for each channel
};

constexpr int64_t kMostAtOnce = 16, kMostInTurn = 64;
#ifndef TMKT_ENOUGH_BLOCKS
#define TMKT_ENOUGH_BLOCKS 2048  // two for each place on an H100; the emulator takes fewer
#endif

// How many blocks are enough, so that more samples go to each, and the most samples of a thread.
struct Turns {
  int64_t blocks, most;
};
constexpr Turns kShortTurns{3 * TMKT_ENOUGH_BLOCKS, kMostInTurn};

// For a kernel that adds up: long turns, over which what the sums cost is spread; the longer the more channels a pack
// has. Other kernels have more blocks, which end more evenly. Measured: benchmarks/results/tuning.md. A thread takes
// no more than so many steps of a neuron, because its sums are in float.
template <typename Pack>
Turns long_turns(int64_t T, int64_t most_steps) {
  const int64_t most = std::clamp<int64_t>(most_steps / T, 1, kMostInTurn);
  return {TMKT_ENOUGH_BLOCKS / (Pack::kOwn > 1 ? 2 : 1), most};
}

// A span is a multiple of `step` channels.
inline Tiling make_tiling(int64_t N, const BnArgs& bn, int64_t step, int64_t packs_of_step, int64_t units_of_channel,
                          int64_t bytes_of_channel, int64_t run_bytes, const Turns& in_turn) {
  Tiling tiling{};
  tiling.channels = bn.channels;
  tiling.inner = bn.inner;
  tiling.of_sample = bn.channels * bn.inner;
  tiling.width = bn.pool_width;
  tiling.height = bn.pool_width > 0 ? bn.inner / bn.pool_width : 0;
  tiling.of_channel = units_of_channel;
  tiling.lanes = 1;
  if (N == 0) return tiling;  // of no blocks
  tiling.samples = N / tiling.of_sample;
  tiling.of_pooled = (tiling.height / 2) * (tiling.width / 2);
  tiling.pooled_step = tiling.samples * tiling.channels * tiling.of_pooled;
  const auto slices = [&](int64_t span, int64_t at_once) {
    return (at_once * (span / step) * packs_of_step + kThreads - 1) / kThreads;
  };
  // All but one in sixteen threads have work.
  const auto full = [&](int64_t span, int64_t at_once) {
    return at_once * (span / step) * packs_of_step * 16 >= slices(span, at_once) * kThreads * 15;
  };
  const int64_t steps = (bn.channels + step - 1) / step, most = std::min(tiling.samples, kMostAtOnce);
  int64_t span = step, at_once = 1;
  const auto fill = [&] {
    for (at_once = 1; at_once < most && !full(span, at_once);) ++at_once;
    return full(span, at_once);
  };
  while ((span * bytes_of_channel < run_bytes || !fill()) && span < bn.channels) span *= 2;
  // As even as may be.
  const int64_t spans = (steps * step + span - 1) / span;
  span = (steps + spans - 1) / spans * step;
  fill();
  tiling.span = span;
  tiling.spans = (steps * step + span - 1) / span;
  tiling.packs = span / step * packs_of_step;
  tiling.at_once = at_once;
  tiling.slices = slices(span, at_once);
  const int64_t turns = (tiling.samples + at_once - 1) / at_once;
  tiling.depth =
      static_cast<int>(std::clamp<int64_t>(turns * tiling.slices * tiling.spans / in_turn.blocks, 1, in_turn.most));
  tiling.groups = (turns + tiling.depth - 1) / tiling.depth;
  tiling.stride = tiling.groups * at_once;
  const int64_t units = kThreads * (span * units_of_channel / tiling.packs) / span;
  while (tiling.lanes < 32 && 2 * tiling.lanes <= units) tiling.lanes *= 2;
  return tiling;
}

// What a thread works on.
struct Item {
  int64_t set, slice, first_channel;  // of the block
  int64_t sample, pack;               // of the thread: its first sample, and its pack of the span
  bool there;                         // the last slice may not be full

  __device__ __forceinline__ Item(const Tiling& tiling) {
    const Division of_block(blockIdx.x, tiling.spans), of_set(of_block.quotient, tiling.slices);
    set = of_block.quotient;
    slice = of_set.remainder;
    first_channel = of_block.remainder * tiling.span;
    const Division of_thread(slice * kThreads + threadIdx.x, tiling.packs);
    there = of_thread.quotient < tiling.at_once;
    sample = of_set.quotient * tiling.at_once + of_thread.quotient;
    pack = of_thread.remainder;
  }
};

// Calls f with the pack in each sample of its thread, from the last to the first if `kBackwards`: each pass over x
// begins where the one before ended, since that is what the second-level cache still holds.
template <bool kBackwards, typename Pack, typename F>
__device__ __forceinline__ void each_sample(const Tiling& tiling, int64_t N, Pack& pack, const F& f) {
  if (kBackwards) pack.move(tiling, (tiling.depth - 1) * tiling.stride);
#pragma unroll 1
  for (int turn = 0; turn < tiling.depth; ++turn) {
    if (pack.place.n < N) f();
    pack.move(tiling, kBackwards ? -tiling.stride : tiling.stride);
  }
}

// kWidth neighbours: of one channel, or each of its own (kOwnChannels = kWidth).
template <int kWidth, int kOwnChannels>
struct Neighbours {
  static constexpr int kOwn = kOwnChannels;
  static constexpr bool kPools = false, kCommon = kWidth > 1;  // kCommon: worth kernels of its own
  // Bytes that lie together in memory and should be read together; fewer where each channel of a span costs sums of its
  // own in every block.
  static constexpr int64_t kRun = kOwn == 1 ? 4096 : 512;
  using Place = Along<kWidth>;
  Place place;
  int64_t channel[kOwn];
  bool there;  // the last span may not be full

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

// Two rows of kColumns neighbours: whole cells.
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

// A cell of which an odd height or width may leave a row or a column: the rest is zeros, and goes nowhere.
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
  bool right, lower;  // whether there are a second column and row

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

// Where the averages over the cells of a step go to, and where their gradients come from.
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

// Whole 2x2 cells of one channel: kColumns / 2 next to one another; or, with kColumns = 0, one that may be cut off.
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

// Calls f with the pack that serves: as wide as words may be, where x's shape and the pointers' alignment let them be.
// A thread with a channel for each neuron takes no more than kMixed, one that pools no more than kColumns of two rows.
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

// What normalises the channels.
struct Norm {
  const float *mean, *var, *weight, *bias;  // [channels]; null weight and bias are 1 and 0
  float eps;

  Norm(const BnArgs& bn, const BnPrepare& prepare)
      : mean(bn.mean),
        var(prepare.var),
        weight(prepare.weight),
        bias(prepare.zero_bias ? nullptr : bn.bias),
        eps(prepare.eps) {}
};

template <int kOwn>
struct Normalised {
  float mean[kOwn], scale[kOwn], bias[kOwn];

  Normalised() = default;
  __device__ __forceinline__ Normalised(const Norm& norm, const int64_t (&channel)[kOwn]) {
#pragma unroll
    for (int j = 0; j < kOwn; ++j) set(j, norm, channel[j], norm.mean[channel[j]], norm.var[channel[j]]);
  }
  __device__ __forceinline__ void set(int j, const Norm& norm, int64_t channel, float own_mean, float var) {
    mean[j] = own_mean;
    scale[j] = bn_scale(var, norm.weight ? norm.weight[channel] : 1.0f, norm.eps);
    bias[j] = norm.bias ? norm.bias[channel] : 0.0f;
  }

  __device__ __forceinline__ float operator()(int j, float x) const {
    const int own = kOwn > 1 ? j : 0;
    return (x - mean[own]) * scale[own] + bias[own];
  }
};

template <typename Pack>
constexpr size_t bytes_to_add_up(int sums) {
  return sizeof(double) * kThreads * Pack::kOwn * sums;
}

__device__ __forceinline__ double sum_of_lanes(double value, int lanes) {
  for (int by = lanes / 2; by > 0; by /= 2) value += __shfl_xor_sync(0xffffffffu, value, by);
  return value;
}

// Writes, for each channel of the block, the sums over the block's threads, to of_blocks [channels, sets, kSums]. All
// threads of the block must come here, with zeros where they had no work.
template <typename Number, int kOwn, int kSums>
__device__ __forceinline__ void add_up(const Tiling& tiling, const Item& item, const Number (&sums)[kOwn][kSums],
                                       double* of_blocks) {
  extern __shared__ uint4 shared_memory[];
  double* of_threads = reinterpret_cast<double*>(shared_memory);  // [kSums][kThreads * kOwn]
  __syncthreads();                                                // others may still read their history there
#pragma unroll
  for (int j = 0; j < kOwn; ++j) {
#pragma unroll
    for (int s = 0; s < kSums; ++s) of_threads[(s * kThreads + threadIdx.x) * kOwn + j] = sums[j][s];
  }
  __syncthreads();
  // The block has units begin .. end of its samples, each of which has `of_sample`.
  const int64_t of_channel = tiling.of_channel, of_sample = tiling.span * of_channel;
  const int64_t begin = item.slice * kThreads * kOwn, end = begin + kThreads * kOwn;
  const int lane = threadIdx.x % tiling.lanes, groups = kThreads / tiling.lanes;
  for (int64_t k0 = 0; k0 < tiling.span; k0 += groups) {  // as often for all lanes of a warp
    const int64_t k = k0 + threadIdx.x / tiling.lanes, channel = item.first_channel + k;
    const bool there = k < tiling.span && channel < tiling.channels;
    // How many units of channel k lie before `unit`.
    const auto before = [&](int64_t unit) {
      const Division of(unit, of_sample);
      return of.quotient * of_channel + max(int64_t{0}, min(of.remainder - k * of_channel, of_channel));
    };
    double total[kSums] = {};
    if (there) {
      const int64_t last = before(end);
      for (int64_t rank = before(begin) + lane; rank < last; rank += tiling.lanes) {
        int64_t unit = rank;
        if (tiling.span > 1) {
          const Division of(rank, of_channel);
          unit = of.quotient * of_sample + k * of_channel + of.remainder;
        }
#pragma unroll
        for (int s = 0; s < kSums; ++s) total[s] += of_threads[s * kThreads * kOwn + (unit - begin)];
      }
    }
#pragma unroll
    for (int s = 0; s < kSums; ++s) {
      total[s] = sum_of_lanes(total[s], tiling.lanes);
      if (there && lane == 0) of_blocks[(channel * tiling.sets() + item.set) * kSums + s] = total[s];
    }
  }
}

// The sums of channel blockIdx.x over all its blocks; true in the one thread that has them.
template <int kSums>
__device__ __forceinline__ bool channel_sums(const Tiling& tiling, const double* of_blocks, double (&sums)[kSums]) {
  __shared__ double of_warps[kThreads / 32][kSums];
  const double* of_channel = of_blocks + blockIdx.x * tiling.sets() * kSums;
  double total[kSums] = {};
#pragma unroll 4
  for (int64_t set = threadIdx.x; set < tiling.sets(); set += kThreads) {
#pragma unroll
    for (int s = 0; s < kSums; ++s) total[s] += of_channel[set * kSums + s];
  }
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
    total[s] = sum_of_lanes(total[s], 32);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32][s] = total[s];
  }
  __syncthreads();
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
    sums[s] = (of_warps[0][s] + of_warps[1][s]) + (of_warps[2][s] + of_warps[3][s]);
  }
  return threadIdx.x == 0;
}

// Sums over the values: of them, less the pivot; of the squares of their means; of their squared deviations from those.
// The means are taken over a neuron's values in all samples of a thread, and the values told from the first of them, so
// that sums in float are exact however far from zero x lies; of so many values at most, or of one sample, because the
// first of them may be far from the rest.
constexpr int kMoments = 3, kMostOfNeuron = 64;

// Where the means of a channel are told from.
template <typename T>
__device__ __forceinline__ float pivot_of(const LifArgs& args, int64_t inner, int64_t channel) {
  return to_float(static_cast<const T*>(args.x)[channel * inner]);
}

template <typename T, typename Place>
struct Moments {
  static constexpr int kWidth = Place::kWidth;
  int64_t count = 0;  // values of each neuron, so far
  float first[kWidth] = {}, sum[kWidth] = {}, squares[kWidth] = {};

  __device__ __forceinline__ void add(Walk<const T, Place> x, int64_t steps) {
    const auto group = [&](auto full, int64_t left) {
      typename Place::template Row<T> rows[kAhead];
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (full || k < left) rows[k] = x.fetch();
      }
      if (count == 0) unpack(rows[0], first);
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (!full && k >= left) break;
        float row[kWidth];
        unpack(rows[k], row);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          const float d = row[j] - first[j];
          sum[j] += d;
          squares[j] = multiply_add(d, d, squares[j]);
        }
      }
      count += full ? kAhead : static_cast<int>(left);
    };
#pragma unroll 1
    for (; steps >= kAhead; steps -= kAhead) group(std::true_type{}, steps);
    if (steps > 0) group(std::false_type{}, steps);
  }

  template <int kOwn>
  __device__ __forceinline__ void add_to(double (&moments)[kOwn][kMoments], const float (&pivot)[kOwn]) const {
    if (count == 0) return;
    const float values = static_cast<float>(count);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const int own = kOwn > 1 ? j : 0;
      const float over = sum[j] / values;
      const double mean = (first[j] - pivot[own]) + over, total = mean * values;
      moments[own][0] += total;
      moments[own][1] += total * mean;
      moments[own][2] += squares[j] - sum[j] * over;
    }
  }
};

struct Statistics {
  float mean, var;
  __device__ __forceinline__ Statistics(const double (&sums)[kMoments], float pivot, const Tiling& tiling,
                                        int64_t steps) {
    const double values = static_cast<double>(tiling.samples * tiling.inner * steps), center = sums[0] / values;
    const double between = sums[1] - sums[0] * center;
    mean = static_cast<float>(pivot + center);
    var = static_cast<float>((sums[2] + (between > 0.0 ? between : 0.0)) / values);
  }
};

constexpr int kGradientSums = 2, kMostSummed = 256;  // over neurons and t: of g, and of g (x - mean)

}  // namespace
}  // namespace tmkt
