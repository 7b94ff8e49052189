// How bn_lif deals out neurons to blocks and threads, and adds up over the neurons of a channel.
//
// A thread takes a pack of neurons: neighbours along a step, or whole 2x2 cells where spikes are pooled. A block takes
// kThreads packs, sample after sample, of a span of channels: of one, or of so many that the block is full and its
// accesses are long.
//
//   x[t]  sample 0 | channel 0 | channel 1 | channel 2 | ..      a span of 2 channels: the block's packs are those of
//         sample 1 | channel 0 | channel 1 | channel 2 | ..      channels 0 and 1 in sample 0, then in sample 1, ..
#pragma once

#include <algorithm>
#include <numeric>

#include "bn_lif/bn_lif_args.h"
#include "lif/lif_tile.cuh"

namespace tmkt {
namespace {

struct Tiling {
  int64_t samples, channels, inner;
  int64_t span;           // channels of a block
  int64_t packs;          // of a span, in a sample
  int64_t of_channel;     // packs of a channel, in a sample; or neurons, where a pack holds several channels
  int64_t spans, chunks;  // blocks: `chunks` of each span
  int lanes;              // threads that add up one channel
  int64_t height, width;  // of a plane whose spikes are pooled

  int64_t blocks() const { return spans * chunks; }
};

constexpr int64_t kLongestSpan = 64, kLineBytes = 128;

// A span is a multiple of `step` channels.
inline Tiling make_tiling(int64_t N, const BnArgs& bn, int64_t step, int64_t packs_of_step, int64_t units_of_channel,
                          int64_t bytes_of_channel) {
  Tiling tiling{};
  tiling.channels = bn.channels;
  tiling.inner = bn.inner;
  tiling.width = bn.pool_width;
  tiling.height = bn.pool_width > 0 ? bn.inner / bn.pool_width : 0;
  tiling.of_channel = units_of_channel;
  tiling.samples = N == 0 ? 0 : N / (bn.channels * bn.inner);
  const auto chunks = [&](int64_t span) {
    return (tiling.samples * (span / step) * packs_of_step + kThreads - 1) / kThreads;
  };
  const auto full = [&](int64_t span) {
    return tiling.samples * (span / step) * packs_of_step * 8 >= chunks(span) * kThreads * 7;
  };
  int64_t span = step;
  while (span < std::min(bn.channels, kLongestSpan) && (span * bytes_of_channel < kLineBytes || !full(span))) span *= 2;
  // As even as may be.
  const int64_t steps = (bn.channels + step - 1) / step, spans = std::max<int64_t>(1, (steps * step + span - 1) / span);
  span = std::max(step, (steps + spans - 1) / spans * step);
  tiling.span = span;
  tiling.spans = spans;
  tiling.packs = span / step * packs_of_step;
  tiling.chunks = chunks(span);
  tiling.lanes = 1;
  const int64_t units = kThreads * (tiling.span * tiling.of_channel / std::max<int64_t>(1, tiling.packs)) / span;
  while (tiling.lanes < 32 && 2 * tiling.lanes <= units) tiling.lanes *= 2;
  return tiling;
}

// What a thread works on; a pass that goes `backwards` starts with the last block.
struct Item {
  int64_t chunk, first_channel;  // of the block
  int64_t sample, pack;          // pack of the span

  __device__ __forceinline__ Item(const Tiling& tiling, bool backwards) {
    const int64_t block = backwards ? tiling.spans * tiling.chunks - 1 - blockIdx.x : blockIdx.x;
    const Division of_block(block, tiling.spans);
    chunk = of_block.quotient;
    first_channel = of_block.remainder * tiling.span;
    const Division of_thread(chunk * kThreads + threadIdx.x, tiling.packs);
    sample = of_thread.quotient;
    pack = of_thread.remainder;
  }
};

// kWidth neighbours: of one channel, or each of its own (kOwnChannels = kWidth).
template <int kWidth, int kOwnChannels>
struct Neighbours {
  static constexpr int kOwn = kOwnChannels;
  static constexpr bool kPools = false, kCommon = kWidth > 1 && kOwn == 1;  // kCommon: worth kernels of its own
  using Place = Along<kWidth>;
  Place place;
  int64_t channel[kOwn];
  bool there;  // the last block is not full, nor is the last span

  static Tiling tiling(int64_t N, const BnArgs& bn, int64_t bytes) {
    if (kOwn == 1) return make_tiling(N, bn, 1, bn.inner / kWidth, bn.inner / kWidth, bn.inner * bytes);
    const int64_t step = kWidth / std::gcd<int64_t>(bn.inner, kWidth);
    return make_tiling(N, bn, step, step * bn.inner / kWidth, bn.inner, bn.inner * bytes);
  }

  __device__ __forceinline__ Neighbours(const Tiling& tiling, const Item& item) {
    const int64_t at = item.pack * kWidth, first = item.first_channel * tiling.inner,
                  all = tiling.channels * tiling.inner;
    place.n = item.sample * all + first + at;
    there = item.sample < tiling.samples && first + at < all;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      channel[j] = item.first_channel + (tiling.span > 1 ? Division(at + j, tiling.inner).quotient : 0);
    }
  }

  template <typename T>
  __device__ __forceinline__ StoreSpikes<T, Place> spikes(const LifForwardArgs& args) const {
    return {args, place};
  }
  template <typename T>
  __device__ __forceinline__ LoadSpikeGradients<T, Place> gradients(const LifBackwardArgs& args) const {
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
  using Place = std::conditional_t<kColumns == 0, AnyCell, WholeCells<kColumns>>;
  Place place;
  int64_t channel[1], pooled, step;  // first pooled value, and values of a pooled step
  bool there, whole;

  static Tiling tiling(int64_t N, const BnArgs& bn, int64_t bytes) {
    const int64_t height = bn.inner / bn.pool_width, columns = 2 * kCells;
    const int64_t packs = (height + 1) / 2 * ((bn.pool_width + columns - 1) / columns);
    return make_tiling(N, bn, 1, packs, packs, bn.inner * bytes);
  }

  __device__ __forceinline__ CellPack(const Tiling& tiling, const Item& item) {
    const int64_t width = tiling.width, height = tiling.height, columns = 2 * kCells;
    const Division of_span(item.pack, tiling.of_channel), of_plane(of_span.remainder, (width + columns - 1) / columns);
    const int64_t row = of_plane.quotient, column = of_plane.remainder * kCells;  // of cells
    channel[0] = item.first_channel + of_span.quotient;
    there = item.sample < tiling.samples && channel[0] < tiling.channels;
    const int64_t plane = item.sample * tiling.channels + channel[0], of_pooled = (height / 2) * (width / 2);
    place.n = plane * tiling.inner + 2 * row * width + 2 * column;
    place.width = width;
    whole = true;
    if constexpr (kColumns == 0) {
      place.right = 2 * column + 1 < width;
      place.lower = 2 * row + 1 < height;
      whole = place.right && place.lower;
    }
    pooled = plane * of_pooled + row * (width / 2) + column;
    step = tiling.samples * tiling.channels * of_pooled;
  }

  template <typename T>
  __device__ __forceinline__ StorePooled<T, kCells> spikes(const LifForwardArgs& args) const {
    return {static_cast<T*>(args.spikes) + pooled, step, whole};
  }
  template <typename T>
  __device__ __forceinline__ LoadPooledGradients<T, kCells> gradients(const LifBackwardArgs& args) const {
    return {static_cast<const T*>(args.grad_spikes) + (args.T - 1) * step + pooled, step, whole};
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
  // The gradient of x, given that of the current, g, and what the batch's statistics take off.
  __device__ __forceinline__ float grad_x(int j, float x, float g, float g_mean, float slope) const {
    const int own = kOwn > 1 ? j : 0;
    return scale[own] * multiply_add(mean[own] - x, slope, g - g_mean);
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

// Writes, for each channel of the block, the sums over the block's threads, to of_blocks [channels, chunks, kSums]. All
// threads of the block must come here.
template <int kOwn, int kSums>
__device__ __forceinline__ void add_up(const Tiling& tiling, const Item& item, const double (&sums)[kOwn][kSums],
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
  // The block has units begin .. end of its span, of which each sample has `of_sample`.
  const int64_t of_channel = tiling.of_channel, of_sample = tiling.span * of_channel;
  const int64_t begin = item.chunk * kThreads * kOwn, end = begin + kThreads * kOwn;
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
      if (there && lane == 0) of_blocks[(channel * tiling.chunks + item.chunk) * kSums + s] = total[s];
    }
  }
}

// The sums of channel blockIdx.x over all its blocks; true in the one thread that has them.
template <int kSums>
__device__ __forceinline__ bool channel_sums(const Tiling& tiling, const double* of_blocks, double (&sums)[kSums]) {
  __shared__ double of_warps[kThreads / 32][kSums];
  const double* of_channel = of_blocks + blockIdx.x * tiling.chunks * kSums;
  double total[kSums] = {};
#pragma unroll 4
  for (int64_t chunk = threadIdx.x; chunk < tiling.chunks; chunk += kThreads) {
#pragma unroll
    for (int s = 0; s < kSums; ++s) total[s] += of_channel[chunk * kSums + s];
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

// Sums over neurons: of the mean over t, less the pivot; of its square; of the squared deviations from it. Those of a
// neuron are told from its own first value, so that they are exact however far from zero x lies.
constexpr int kMoments = 3;

// Where the means of a channel are told from.
template <typename T>
__device__ __forceinline__ float pivot_of(const LifArgs& args, int64_t inner, int64_t channel) {
  return to_float(static_cast<const T*>(args.x)[channel * inner]);
}

// Adds those of a pack.
template <typename T, typename Place, int kOwn>
__device__ __forceinline__ void add_moments(Walk<const T, Place> x, int64_t steps, const float (&pivot)[kOwn],
                                            double (&moments)[kOwn][kMoments]) {
  constexpr int kWidth = Place::kWidth;
  float first[kWidth], sum[kWidth] = {}, squares[kWidth] = {};
#pragma unroll 1
  for (int64_t begin = 0; begin < steps; begin += kAhead) {
    typename Place::template Row<T> rows[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (begin + k < steps) rows[k] = x.fetch();
    }
    if (begin == 0) unpack(rows[0], first);
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (begin + k >= steps) break;
      float row[kWidth];
      unpack(rows[k], row);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float d = row[j] - first[j];
        sum[j] += d;
        squares[j] += d * d;
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const int own = kOwn > 1 ? j : 0;
    const float over_t = sum[j] / static_cast<float>(steps), mean = (first[j] - pivot[own]) + over_t;
    moments[own][0] += mean;
    moments[own][1] += static_cast<double>(mean) * mean;
    moments[own][2] += squares[j] - sum[j] * over_t;
  }
}

struct Statistics {
  float mean, var;
  __device__ __forceinline__ Statistics(const double (&sums)[kMoments], float pivot, const Tiling& tiling,
                                        int64_t steps) {
    const double neurons = static_cast<double>(tiling.samples * tiling.inner), center = sums[0] / neurons;
    const double between = sums[1] - sums[0] * center, within = sums[2] / static_cast<double>(steps);
    mean = static_cast<float>(pivot + center);
    var = static_cast<float>((within + (between > 0.0 ? between : 0.0)) / neurons);
  }
};

constexpr int kGradientSums = 2;  // over neurons and t: of g, and of g (x - mean)

}  // namespace
}  // namespace tmkt
