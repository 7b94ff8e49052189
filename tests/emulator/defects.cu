// Kernels with one planted defect each, and the same kernels without: `defects NAME` prints the result of the launch.
// The emulator must report every defect (test_emulator.py), and nothing else.
#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace cg = cooperative_groups;

namespace {

constexpr int kThreads = 64;

template <bool kBarrier>
__global__ void neighbour(float* out) {
  __shared__ float values[kThreads];
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (kBarrier) __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = values[(threadIdx.x + 1) % kThreads];
}

template <bool kDivergent>
__global__ void branch(float* out) {
  if (kDivergent && threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1.0f;
}

__global__ void half_of_block(float* out) {
  __shared__ float values[kThreads];
  if (threadIdx.x >= 32) return;
  values[threadIdx.x] = 1.0f;
  __syncthreads();  // of the threads that remain, as on a GPU
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}

__global__ void past_the_end(float* out, int extra) {
  __shared__ float values[kThreads];
  values[threadIdx.x + extra] = 1.0f;
  out[threadIdx.x] = values[threadIdx.x];
}

__global__ void past_the_end_of_dynamic(float* out, int extra) {
  extern __shared__ float values[];
  values[threadIdx.x + extra] = 1.0f;
  out[threadIdx.x] = values[threadIdx.x];
}

__global__ void uninitialised(float* out, int written) {
  __shared__ float values[kThreads];
  if (threadIdx.x < written) values[threadIdx.x] = 1.0f;
  __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = values[kThreads - 1 - threadIdx.x];
}

__global__ void shuffle(float* out, unsigned mask, int lanes) {
  float value = static_cast<float>(threadIdx.x % 32);
  if (threadIdx.x % 32 < lanes) value += __shfl_xor_sync(mask, value, 1);
  __syncthreads();
  out[threadIdx.x] = value;
}

__global__ void two_masks(float* out) {
  const unsigned mask = threadIdx.x % 2 ? 0xfffffffeu : 0xffffffffu;
  out[threadIdx.x] = __shfl_xor_sync(mask, 1.0f, 1);
}

__global__ void wide(float* out, int offset) { *reinterpret_cast<float4*>(out + offset) = {}; }

__global__ void through_null(const float* in, float* out) { out[threadIdx.x] = in[0]; }

__global__ void divides(float* out, int by) {
  out[threadIdx.x] = static_cast<float>(static_cast<int>(threadIdx.x) / by);
}

__global__ void asserts(float* out, bool condition) {
  assert(condition);
  out[threadIdx.x] = 1.0f;
}

// Each block gives its sum to block 0 of its cluster.
template <bool kLast>
__global__ void cluster_sum(float* out) {
  __shared__ float sums[8];
  const cg::cluster_group cluster = cg::this_cluster();
  if (threadIdx.x == 0) *cluster.map_shared_rank(&sums[cluster.block_rank()], 0) = 1.0f + cluster.block_rank();
  cluster.sync();
  if (cluster.block_rank() == 0 && threadIdx.x == 0) {
    float sum = 0.0f;
    for (unsigned i = 0; i < cluster.num_blocks(); ++i) sum += sums[i];
    out[blockIdx.x] = sum;
  }
  if (kLast) cluster.sync();
}

// Reads the shared memory of a neighbour, which may have exited unless the blocks wait for one another at the end.
template <bool kLast>
__global__ void cluster_read(float* out) {
  __shared__ float value;
  const cg::cluster_group cluster = cg::this_cluster();
  if (threadIdx.x == 0) value = 1.0f + blockIdx.x;
  cluster.sync();
  __syncthreads();
  if (cluster.block_rank() == 0) __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = *cluster.map_shared_rank(&value, cluster.block_rank() ^ 1);
  if (kLast) cluster.sync();
}

// Every thread of every block stores to the same address.
__global__ void race_of_blocks(float* out) {
  if (threadIdx.x == 5) out[0] = static_cast<float>(blockIdx.x);
}

__global__ void nothing() {}

template <typename... Parameters, typename... Arguments>
void launch_clusters(unsigned grid, unsigned cluster, void (*kernel)(Parameters...), Arguments... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {cluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = kThreads;
  config.attrs = &attribute;
  config.numAttrs = 1;
  cudaLaunchKernelEx(&config, kernel, arguments...);
}

constexpr int kLarge = 100 << 10;

}  // namespace

int main(int count, char** arguments) {
  std::vector<float> memory(4 * kThreads, 0.0f);
  float* out = memory.data();
  while (reinterpret_cast<uintptr_t>(out) % sizeof(float4)) ++out;
  const std::map<std::string, std::function<void()>> cases = {
      {"barrier", [&] { neighbour<true><<<3, kThreads>>>(out); }},
      {"missing-barrier", [&] { neighbour<false><<<3, kThreads>>>(out); }},
      {"one-barrier", [&] { branch<false><<<1, kThreads>>>(out); }},
      {"divergent-barrier", [&] { branch<true><<<1, kThreads>>>(out); }},
      {"exited-threads", [&] { half_of_block<<<1, kThreads>>>(out); }},
      {"inside", [&] { past_the_end<<<1, kThreads>>>(out, 0); }},
      {"past-the-end", [&] { past_the_end<<<1, kThreads>>>(out, 1); }},
      {"inside-dynamic", [&] { past_the_end_of_dynamic<<<1, kThreads, kThreads * 4>>>(out, 0); }},
      {"past-the-end-dynamic", [&] { past_the_end_of_dynamic<<<1, kThreads, kThreads * 4>>>(out, 1); }},
      {"no-dynamic", [&] { past_the_end_of_dynamic<<<1, kThreads>>>(out, 0); }},
      {"initialised", [&] { uninitialised<<<2, kThreads>>>(out, kThreads); }},
      {"uninitialised", [&] { uninitialised<<<2, kThreads>>>(out, kThreads - 1); }},
      {"shuffle", [&] { shuffle<<<1, kThreads>>>(out, 0xffffffffu, 32); }},
      {"shuffle-of-some", [&] { shuffle<<<1, kThreads>>>(out, 0x0000ffffu, 16); }},
      {"lane-not-in-mask", [&] { shuffle<<<1, kThreads>>>(out, 0x7fffffffu, 32); }},
      {"lane-stays-away", [&] { shuffle<<<1, kThreads>>>(out, 0xffffffffu, 16); }},
      {"two-masks", [&] { two_masks<<<1, kThreads>>>(out); }},
      {"aligned", [&] { wide<<<1, 1>>>(out, 4); }},
      {"misaligned", [&] { wide<<<1, 1>>>(out, 1); }},
      {"null", [&] { through_null<<<1, 1>>>(nullptr, out); }},
      {"zero", [&] { divides<<<1, 1>>>(out, 0); }},
      {"assert", [&] { asserts<<<1, 1>>>(out, false); }},
      {"cluster", [&] { launch_clusters(4, 2, cluster_sum<true>, out); }},
      {"cluster-end", [&] { launch_clusters(4, 2, cluster_read<true>, out); }},
      {"cluster-exited", [&] { launch_clusters(4, 2, cluster_read<false>, out); }},
      {"cluster-of-9", [&] { launch_clusters(9, 9, nothing); }},
      {"cluster-of-16",
       [&] {
         cudaFuncSetAttribute(nothing, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
         launch_clusters(16, 16, nothing);
       }},
      {"grid-of-no-cluster", [&] { launch_clusters(3, 2, nothing); }},
      {"blocks-race", [&] { race_of_blocks<<<2, kThreads>>>(out); }},
      {"no-blocks", [&] { nothing<<<0, kThreads>>>(); }},
      {"too-many-blocks", [&] { nothing<<<1u << 31, kThreads>>>(); }},
      {"no-threads", [&] { nothing<<<1, 0>>>(); }},
      {"1024-threads", [&] { nothing<<<1, 1024>>>(); }},
      {"1025-threads", [&] { nothing<<<1, 1025>>>(); }},
      {"dynamic-48", [&] { nothing<<<1, 1, 48 << 10>>>(); }},
      {"dynamic-100", [&] { nothing<<<1, 1, kLarge>>>(); }},
      {"dynamic-100-granted",
       [&] {
         cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, kLarge);
         nothing<<<1, 1, kLarge>>>();
       }},
      {"dynamic-228-granted",
       [&] {
         cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 << 10);
         nothing<<<1, 1, 228 << 10>>>();
       }},
  };
  if (count < 2 || !cases.count(arguments[1])) return std::fprintf(stderr, "no such case\n"), 2;
  cases.at(arguments[1])();
  std::printf("%s\n", cudaGetErrorString(cudaGetLastError()));
  for (int i = 0; i < kThreads; ++i) std::printf("%g ", static_cast<double>(out[i]));
}
