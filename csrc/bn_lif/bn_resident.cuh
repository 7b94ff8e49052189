// A channel that fits the shared memory of a few blocks: x, and in backward the spikes' gradient, are read once.
//
// The blocks of a cluster (one block, before sm_90) copy the channel's rows to shared memory, add up, exchange their
// sums, and go on from there. A thread reads only what it copied itself, so that there is no barrier but that for the
// sums.
#pragma once

#include <cooperative_groups.h>

#include <optional>

#include "bn_lif/bn_tile.cuh"

namespace tmkt {
namespace {

// A channel's packs lie in `blocks` blocks, so many in each; a thread takes one in each of so many rounds.
struct Residence {
  int blocks, threads, rounds;
  int64_t packs;
  size_t history, bytes;  // of shared memory, a block: for the history, and all

  TMKT_INLINE int slots() const { return threads * rounds; }
};

constexpr int kResidentThreads = 256;

// Packs that are copied to shared memory: word by word of at least 4 bytes, all of one channel.
template <typename Pack>
constexpr bool kCanReside =
    Pack::kOwn == 1 && !std::is_same_v<Pack, Neighbours<1, 1>> && !std::is_same_v<Pack, CellPack<0>>;

struct Device {
  int multiprocessors, shared_bytes, largest_cluster;

  // Of the current device.
  static Device current() {
    Device device{};
    int index = 0, major = 0;
    check_cuda(cudaGetDevice(&index), "current CUDA device");
    const auto ask = [&](cudaDeviceAttr attribute, int* value) {
      check_cuda(cudaDeviceGetAttribute(value, attribute, index), "attribute of a CUDA device");
    };
    ask(cudaDevAttrMultiProcessorCount, &device.multiprocessors);
    ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor, &device.shared_bytes);
    ask(cudaDevAttrComputeCapabilityMajor, &major);
    device.largest_cluster = major >= 9 ? 8 : 1;  // that every such device runs
    return device;
  }
};

// The fewest blocks that hold a channel so that two of them share a multiprocessor, one at work while the other waits
// for memory; or more, where these would leave multiprocessors idle. None where a channel does not fit.
inline std::optional<Residence> residence(const Tiling& tiling, size_t bytes_of_pack, size_t history,
                                          int most_threads) {
  constexpr int64_t kReserved = 3 << 10;  // bytes a block: the runtime's, and the sums
  const Device device = Device::current();
  const int64_t packs = tiling.samples * tiling.of_channel;
  std::optional<Residence> found;
  for (int blocks = 1; blocks <= device.largest_cluster; blocks *= 2) {
    Residence home{};
    home.blocks = blocks;
    home.packs = (packs + blocks - 1) / blocks;
    home.rounds = static_cast<int>((home.packs + most_threads - 1) / most_threads);
    if (home.rounds == 0) return {};
    home.threads = static_cast<int>((home.packs + home.rounds - 1) / home.rounds + 31) / 32 * 32;
    home.history = history;
    home.bytes = history + bytes_of_pack * home.threads * home.rounds;
    if (2 * (static_cast<int64_t>(home.bytes) + kReserved) > device.shared_bytes) continue;
    if (found && home.threads < 64) break;
    found = home;
    if (tiling.channels * blocks >= 2 * device.multiprocessors) break;
  }
  return found;
}

// The place P, of which a copy is in shared memory: `fetch` is given that. `load` and `store` go to P itself.
template <typename P>
struct Resident : P {
  template <typename T>
  __device__ __forceinline__ typename P::template Row<T> fetch(const T* copy) const {
    return *reinterpret_cast<const typename P::template Row<T>*>(copy);
  }
};

template <typename Word>
__device__ __forceinline__ void copy_async(const Word* source, Word* shared) {
#ifdef __CUDACC__
  const uint32_t target = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  if constexpr (sizeof(Word) == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(source) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(target), "l"(source), "n"(sizeof(Word)) : "memory");
  }
#else
  *shared = *source;
#endif
}
// Until what this thread copied is there.
__device__ __forceinline__ void wait_for_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
template <typename T, int kWidth>
__device__ __forceinline__ void copy_async(const T* source, Packed<T, kWidth>* shared) {
  using Word = typename Packed<T, kWidth>::Word;
#pragma unroll
  for (int i = 0; i < Packed<T, kWidth>::kWords; ++i) {
    copy_async(reinterpret_cast<const Word*>(source) + i, shared->words + i);
  }
}
template <typename T, int kWidth>
__device__ __forceinline__ void copy_row(const Along<kWidth>& place, const T* step, T* shared) {
  copy_async(step + place.n, reinterpret_cast<Packed<T, kWidth>*>(shared));
}
template <typename T, int kColumns>
__device__ __forceinline__ void copy_row(const WholeCells<kColumns>& place, const T* step, T* shared) {
  auto* rows = reinterpret_cast<TwoRows<T, kColumns>*>(shared);
#pragma unroll
  for (int i = 0; i < 2; ++i) copy_async(step + place.n + i * place.width, rows->row + i);
}

__device__ __forceinline__ unsigned cluster_rank() {
#if __CUDA_ARCH__ >= 900
  return cooperative_groups::this_cluster().block_rank();
#else
  return 0;
#endif
}
__device__ __forceinline__ void wait_for_cluster() {
#if __CUDA_ARCH__ >= 900
  cooperative_groups::this_cluster().sync();
#else
  __syncthreads();
#endif
}

// Sums over all threads of the cluster, in a fixed order; all threads get them. No block may end before
// wait_for_cluster() has been called again: others may still read its sums.
template <int kSums>
__device__ __forceinline__ void cluster_sums(int blocks, double (&sums)[kSums]) {
  __shared__ double of_warps[kResidentThreads / 32][kSums];
  __shared__ double of_block[kSums];
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
    const double of_warp = sum_of_lanes(sums[s], 32);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32][s] = of_warp;
  }
  __syncthreads();
  if (threadIdx.x < kSums) {
    double sum = 0.0;
    for (int warp = 0; warp < blockDim.x / 32; ++warp) sum += of_warps[warp][threadIdx.x];
    of_block[threadIdx.x] = sum;
  }
  wait_for_cluster();
#pragma unroll
  for (int s = 0; s < kSums; ++s) sums[s] = 0.0;
  for (int block = 0; block < blocks; ++block) {
#if __CUDA_ARCH__ >= 900
    const double* of = cooperative_groups::this_cluster().map_shared_rank(of_block, block);
#else
    const double* of = of_block;
#endif
#pragma unroll
    for (int s = 0; s < kSums; ++s) sums[s] += of[s];
  }
}

// Calls f(slot, pack) for this thread's packs of the channel.
template <typename Pack, typename F>
__device__ __forceinline__ void each_pack(const Tiling& tiling, const Residence& home, int64_t channel, const F& f) {
  const int64_t all = tiling.samples * tiling.of_channel, first = cluster_rank() * home.packs;
#pragma unroll 1
  for (int round = 0; round < home.rounds; ++round) {
    const int slot = round * home.threads + static_cast<int>(threadIdx.x);
    if (slot < home.packs && first + slot < all) f(slot, Pack(tiling, Item(tiling, channel, first + slot)));
  }
}

template <typename T, typename Pack>
__global__ void __launch_bounds__(kResidentThreads, 2)
    resident_forward_kernel(const BnLifForwardArgs args, const Norm norm, const Tiling tiling, const Residence home,
                            float* batch_mean, float* batch_var) {
  extern __shared__ uint4 shared_memory[];
  using Place = Resident<typename Pack::Place>;
  constexpr int kWidth = Place::kWidth;
  const int channel = blockIdx.x / home.blocks, pitch = home.slots() * kWidth;
  T* rows = reinterpret_cast<T*>(shared_memory);  // [T, slots, kWidth]
  each_pack<Pack>(tiling, home, channel, [&](int slot, const Pack& pack) {
    for (int t = 0; t < args.T; ++t) {
      copy_row(pack.place, static_cast<const T*>(args.x) + t * args.N, rows + t * pitch + slot * kWidth);
    }
  });
  const float pivot[1] = {pivot_of<T>(args, tiling.inner, channel)};
  double moments[1][kMoments] = {};
  wait_for_copies();
  each_pack<Pack>(tiling, home, channel, [&](int slot, const Pack& pack) {
    add_moments(Place{pack.place}, rows + slot * kWidth, args.T, pitch, pivot, moments);
  });
  cluster_sums(home.blocks, moments[0]);
  const Statistics of_channel(moments[0], pivot[0], tiling, args.T);
  if (cluster_rank() == 0 && threadIdx.x == 0) {
    batch_mean[channel] = of_channel.mean;
    batch_var[channel] = of_channel.var;
  }
  Normalised<1> input;
  input.set(0, norm, channel, of_channel.mean, of_channel.var);
  each_pack<Pack>(tiling, home, channel, [&](int slot, const Pack& pack) {
    BnLifForwardArgs copy = args;
    copy.x = rows + slot * kWidth;
    copy.N = pitch;
    forward_tile<T>(copy, Params<0>(args, 0), input, Place{pack.place}, pack.template spikes<T>(args));
  });
  wait_for_cluster();
}

// The spikes' gradients in shared memory, [T, slots, kWidth] floats of which each row begins with what was copied. The
// current's gradients take their places.
template <typename T, typename Place>
struct CopiedGradients {
  using Row = typename Place::template Row<T>;
  const float* rows;
  int pitch;
  __device__ __forceinline__ Row fetch(int t) const { return *reinterpret_cast<const Row*>(rows + t * pitch); }
  __device__ __forceinline__ void unpack(const Row& row, float (&grad_s)[Place::kWidth]) const {
    tmkt::unpack(row, grad_s);
  }
};
template <typename Place>
struct KeepGradients {
  static constexpr bool kTakesX = true;
  float *rows, mean;
  int pitch;
  float g_sum[Place::kWidth], gd_sum[Place::kWidth];
  __device__ __forceinline__ void operator()(int t, const float (&x)[Place::kWidth], const float (&g)[Place::kWidth]) {
#pragma unroll
    for (int j = 0; j < Place::kWidth; ++j) {
      g_sum[j] += g[j];
      gd_sum[j] += g[j] * (x[j] - mean);
    }
    *reinterpret_cast<Packed<float, Place::kWidth>*>(rows + t * pitch) = pack<float>(g);
  }
};

template <typename T, typename Pack, int kSurrogate>
__global__ void __launch_bounds__(kThreads, 4)
    resident_backward_kernel(const BnLifBackwardArgs args, const Norm norm, const Tiling tiling, const Residence home) {
  extern __shared__ uint4 shared_memory[];
  using Place = Resident<typename Pack::Place>;
  constexpr int kWidth = Place::kWidth;
  const int channel = blockIdx.x / home.blocks, pitch = home.slots() * kWidth;
  float* g_rows = reinterpret_cast<float*>(reinterpret_cast<char*>(shared_memory) + home.history);
  T* x_rows = reinterpret_cast<T*>(g_rows + args.T * pitch);
  each_pack<Pack>(tiling, home, channel, [&](int slot, const Pack& pack) {
    for (int t = 0; t < args.T; ++t) {
      const int at = t * pitch + slot * kWidth;
      copy_row(pack.place, static_cast<const T*>(args.x) + t * args.N, x_rows + at);
      if constexpr (!Pack::kPools) {
        if (!args.grad_spikes) continue;
        copy_row(pack.place, static_cast<const T*>(args.grad_spikes) + t * args.N, reinterpret_cast<T*>(g_rows + at));
      }
    }
  });
  const int64_t channels[1] = {channel};
  const Normalised<1> input(norm, channels);
  double sums[kGradientSums] = {};
  wait_for_copies();
  each_pack<Pack>(tiling, home, channel, [&](int slot, const Pack& pack) {
    BnLifBackwardArgs copy = args;
    copy.x = x_rows + slot * kWidth;
    copy.N = pitch;
    KeepGradients<Place> sink{g_rows + slot * kWidth, input.mean[0], pitch, {}, {}};
    LifParams<float> none[1];
    const auto backward = [&](const auto& gradients) {
      backward_tile<T, false, kSurrogate>(copy, Params<0>(args, 0), input, Place{pack.place}, gradients, sink, nullptr,
                                          none);
    };
    if constexpr (Pack::kPools) {
      backward(pack.template gradients<T>(args));
    } else {
      backward(CopiedGradients<T, typename Pack::Place>{g_rows + slot * kWidth, pitch});
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      sums[0] += sink.g_sum[j];
      sums[1] += sink.gd_sum[j];
    }
  });
  cluster_sums(home.blocks, sums);
  const int64_t count = args.T * tiling.samples * tiling.inner;
  const BnGradients grad = bn_gradients(sums[0], sums[1], norm.var[channel], norm.eps, count);
  if (cluster_rank() == 0 && threadIdx.x == 0) {
    args.grad_weight[channel] = grad.weight;
    args.grad_bias[channel] = grad.bias;
  }
  each_pack<Pack>(tiling, home, channel, [&](int slot, const Pack& pack) {
    for (int t = 0; t < args.T; ++t) {
      const int at = t * pitch + slot * kWidth;
      float row[kWidth], g[kWidth];
      unpack(Place{pack.place}.fetch(x_rows + at), row);
      unpack(*reinterpret_cast<const Packed<float, kWidth>*>(g_rows + at), g);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) row[j] = input.grad_x(0, row[j], g[j], grad.g_mean, grad.slope);
      pack.place.store(row, static_cast<T*>(args.grad_x) + t * args.N);
    }
  });
  wait_for_cluster();
}

}  // namespace
}  // namespace tmkt
