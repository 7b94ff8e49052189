// Sums of bn_lif over the neurons of a channel: moments of x, and sums of gradients.
#pragma once

#include "bn_lif/packs.cuh"

namespace tmkt {
namespace {

template <typename Pack>
constexpr size_t bytes_to_add_up(int sums) {
  return sizeof(double) * kThreads * Pack::kOwn * sums;
}

__device__ __forceinline__ double sum_of_lanes(double value, int lanes) {
  for (int by = lanes / 2; by > 0; by /= 2) value += __shfl_xor_sync(0xffffffffu, value, by);
  return value;
}

// Writes the sums over the block's threads, per channel of the block, to of_blocks [channels, sets, kSums]. All threads
// of the block must call it, those without work with zeros.
template <typename Number, int kOwn, int kSums>
__device__ __forceinline__ void add_up(const Tiling& tiling, const Item& item, const Number (&sums)[kOwn][kSums],
                                       double* of_blocks) {
  extern __shared__ uint4 shared_memory[];
  double* of_threads = reinterpret_cast<double*>(shared_memory);  // [kSums][kThreads * kOwn]
  __syncthreads();                                                // other threads may still read their history there
#pragma unroll
  for (int j = 0; j < kOwn; ++j) {
#pragma unroll
    for (int s = 0; s < kSums; ++s) of_threads[(s * kThreads + threadIdx.x) * kOwn + j] = sums[j][s];
  }
  __syncthreads();
  // The block has units begin .. end of its samples; a sample has `of_sample` units.
  const int64_t of_channel = tiling.of_channel, of_sample = tiling.span * of_channel;
  const int64_t begin = item.slice * kThreads * kOwn, end = begin + kThreads * kOwn;
  const int lane = threadIdx.x % tiling.lanes, groups = kThreads / tiling.lanes;
  for (int64_t k0 = 0; k0 < tiling.span; k0 += groups) {  // the same number of turns for all lanes of a warp
    const int64_t k = k0 + threadIdx.x / tiling.lanes, channel = item.first_channel + k;
    const bool there = k < tiling.span && channel < tiling.channels;
    // Number of units of channel k before `unit`.
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

// Sums of channel blockIdx.x over all its blocks. Returns true in the one thread that holds them.
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

// Three sums: of the values, relative to the pivot; of the squares of the means; of the squared deviations from the
// means. A mean is taken over a neuron's values in all samples of a thread, relative to the first value, so that sums
// in float are exact however far x is from zero. A mean covers kMostOfNeuron values or one sample, because the first
// value may be far from the rest.
constexpr int kMoments = 3, kMostOfNeuron = 64;

// Pivot of a channel: its means are computed relative to it.
template <typename T>
__device__ __forceinline__ float pivot_of(const ScanArgs& args, int64_t inner, int64_t channel) {
  return to_float(static_cast<const T*>(args.x)[channel * inner]);
}

template <typename T, typename Place>
struct Moments {
  static constexpr int kWidth = Place::kWidth;
  int64_t count = 0;  // values per neuron so far
  float first[kWidth] = {}, sum[kWidth] = {}, squares[kWidth] = {};

  __device__ __forceinline__ void add(RowCursor<const T, Place> x, int64_t steps) {
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
