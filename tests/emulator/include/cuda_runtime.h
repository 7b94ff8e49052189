// CUDA's names, as far as csrc/ uses them, on the emulator.
#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#include "emulator.h"

#define __CUDA_ARCH__ 900  // selects the branches for device code, on the host too
#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

using dim3 = emulator::Dim3;
constexpr int warpSize = emulator::kWarp;

// --- types ---
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(4) ushort2 {
  unsigned short x, y;
};
struct alignas(8) ushort4 {
  unsigned short x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// --- host functions ---
using cudaStream_t = void*;
using cudaError_t = emulator::Error;
constexpr cudaError_t cudaSuccess = emulator::kSuccess;
constexpr cudaError_t cudaErrorInvalidValue = emulator::kInvalidValue;
constexpr cudaError_t cudaErrorInvalidConfiguration = emulator::kInvalidConfiguration;
inline cudaError_t cudaGetLastError() { return emulator::last_error(true); }
inline cudaError_t cudaPeekAtLastError() { return emulator::last_error(false); }
inline const char* cudaGetErrorString(cudaError_t error) { return emulator::error_text(error); }
inline cudaError_t cudaDeviceSynchronize() { return emulator::last_error(true); }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }

// An H100's. TMKT_EMULATOR_CAPABILITY=80, for example, makes code that checks see a GPU without clusters.
struct cudaDeviceProp {
  char name[256] = "emulated";
  int major, minor, multiProcessorCount = emulator::kMultiprocessors, warpSize = emulator::kWarp;
  int maxThreadsPerBlock = emulator::kThreadsMost, maxThreadsPerMultiProcessor = 2048, regsPerMultiprocessor = 65536;
  int l2CacheSize = 50 << 20, maxBlocksPerMultiProcessor = 32;
  size_t sharedMemPerBlock = emulator::kSharedWithoutOptIn, sharedMemPerBlockOptin = emulator::kSharedMost;
  size_t sharedMemPerMultiprocessor = 228 << 10, reservedSharedMemPerBlock = 1 << 10;
};
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  const char* wanted = std::getenv("TMKT_EMULATOR_CAPABILITY");
  const int capability = wanted ? std::atoi(wanted) : 90;
  *properties = {};
  properties->major = capability / 10, properties->minor = capability % 10;
  return cudaSuccess;
}

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrClusterLaunch,
  cudaDevAttrL2CacheSize,
  cudaDevAttrMaxThreadsPerMultiProcessor,
};
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  cudaGetDeviceProperties(&p, device);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      return *value = p.multiProcessorCount, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return *value = static_cast<int>(p.sharedMemPerBlockOptin), cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return *value = static_cast<int>(p.sharedMemPerMultiprocessor), cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      return *value = p.major, cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      return *value = p.minor, cudaSuccess;
    case cudaDevAttrClusterLaunch:
      return *value = p.major >= 9, cudaSuccess;
    case cudaDevAttrL2CacheSize:
      return *value = p.l2CacheSize, cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return *value = p.maxThreadsPerMultiProcessor, cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize,
  cudaFuncAttributePreferredSharedMemoryCarveout,
  cudaFuncAttributeNonPortableClusterSizeAllowed,
};
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  emulator::Grants& grants = emulator::grants(reinterpret_cast<const void*>(kernel));
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value < 0 || static_cast<size_t>(value) > emulator::kSharedMost) return cudaErrorInvalidValue;
    grants.dynamic_shared = std::max(emulator::kSharedWithoutOptIn, static_cast<size_t>(value));
  }
  if (attribute == cudaFuncAttributeNonPortableClusterSizeAllowed) grants.large_cluster = value != 0;
  return cudaSuccess;
}

enum cudaLaunchAttributeID { cudaLaunchAttributeIgnore, cudaLaunchAttributeClusterDimension };
union cudaLaunchAttributeValue {
  struct {
    unsigned x, y, z;
  } clusterDim;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};
namespace emulator {
inline Config config_of(const cudaLaunchConfig_t& from) {
  Config config(from.gridDim, from.blockDim, from.dynamicSmemBytes);
  for (unsigned i = 0; i < from.numAttrs; ++i) {
    if (from.attrs[i].id != cudaLaunchAttributeClusterDimension) continue;
    const auto& dim = from.attrs[i].val.clusterDim;
    config.cluster = dim.y == 1 && dim.z == 1 ? dim.x : 0;  // in x only, as our grids are
  }
  return config;
}
}  // namespace emulator
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  return emulator::launch(emulator::config_of(*config), kernel, arguments...);
}
// From threads and shared memory; registers are unknown here.
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int threads, size_t shared) {
  return *blocks = static_cast<int>(std::min<size_t>(2048 / threads, (228 << 10) / (shared + (1 << 10)))), cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, Kernel* kernel, const cudaLaunchConfig_t* from) {
  const emulator::Config config = emulator::config_of(*from);
  const emulator::Grants& grants = emulator::grants(reinterpret_cast<const void*>(kernel));
  if (config.cluster == 0 || config.cluster > (grants.large_cluster ? 16u : 8u)) return emulator::kInvalidCluster;
  if (config.dynamic_shared > grants.dynamic_shared) return cudaErrorInvalidValue;
  int blocks = 0;
  const int threads = static_cast<int>(config.block.x * config.block.y * config.block.z);
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, config.dynamic_shared);
  return *clusters = emulator::kMultiprocessors * blocks / static_cast<int>(config.cluster), cudaSuccess;
}

// --- barriers and warps; the defaults are the caller's file and line ---
#define EMULATOR_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()
inline void __syncthreads(EMULATOR_CALLER) { emulator::wait_for_block({"__syncthreads", file, line}, false); }
inline int __syncthreads_or(int predicate, EMULATOR_CALLER) {
  return emulator::wait_for_block({"__syncthreads_or", file, line}, predicate) > 0;
}
inline int __syncthreads_and(int predicate, EMULATOR_CALLER) {
  return emulator::wait_for_block({"__syncthreads_and", file, line}, !predicate) == 0;
}
inline int __syncthreads_count(int predicate, EMULATOR_CALLER) {
  return emulator::wait_for_block({"__syncthreads_count", file, line}, predicate);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_CALLER) {
  emulator::exchange({"__syncwarp", file, line}, mask, 0, true);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_CALLER) {
  const uint64_t* lanes = emulator::exchange({"__ballot_sync", file, line}, mask, predicate != 0, false);
  unsigned ballot = 0;
  for (int i = 0; i < warpSize; ++i) ballot |= (lanes[i] == 1 ? 1u : 0u) << i;
  return ballot;
}
inline int __any_sync(unsigned mask, int predicate, EMULATOR_CALLER) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMULATOR_CALLER) {
  return __ballot_sync(mask, !predicate, file, line) == 0;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
[[noreturn]] inline void __trap() { emulator::fail("__trap"); }

namespace emulator {
inline int lane() {
  return static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % kWarp);
}
// The value of lane `source`, or the caller's own if `source` is outside its `width` lanes.
template <typename T>
T shuffle(Site site, unsigned mask, T value, int source, bool inside) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a shuffle moves 8 bytes at most");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const uint64_t* lanes = exchange(site, mask, bits, false);
  std::memcpy(&value, &lanes[inside ? source : lane()], sizeof(T));
  return value;
}
}  // namespace emulator
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, EMULATOR_CALLER) {
  const int first = emulator::lane() / width * width;
  return emulator::shuffle({"__shfl_sync", file, line}, mask, value, first + (source & (width - 1)), true);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int by, int width = warpSize, EMULATOR_CALLER) {
  const int lane = emulator::lane(), source = lane ^ by;
  return emulator::shuffle({"__shfl_xor_sync", file, line}, mask, value, source, source < (lane / width + 1) * width);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = warpSize, EMULATOR_CALLER) {
  const int lane = emulator::lane(), source = lane + static_cast<int>(by);
  return emulator::shuffle({"__shfl_down_sync", file, line}, mask, value, source, source < (lane / width + 1) * width);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = warpSize, EMULATOR_CALLER) {
  const int lane = emulator::lane(), source = lane - static_cast<int>(by);
  return emulator::shuffle({"__shfl_up_sync", file, line}, mask, value, source, source >= lane / width * width);
}

// --- memory: caches are not emulated, -fsanitize=alignment checks the address ---
#define EMULATOR_LOAD(name)      \
  template <typename T>          \
  inline T name(const T* from) { \
    return *from;                \
  }
EMULATOR_LOAD(__ldg)
EMULATOR_LOAD(__ldca)
EMULATOR_LOAD(__ldcg)
EMULATOR_LOAD(__ldcs)
EMULATOR_LOAD(__ldcv)
EMULATOR_LOAD(__ldlu)
#define EMULATOR_STORE(name)         \
  template <typename T>              \
  inline void name(T* to, T value) { \
    *to = value;                     \
  }
EMULATOR_STORE(__stcg)
EMULATOR_STORE(__stcs)
EMULATOR_STORE(__stwb)
EMULATOR_STORE(__stwt)

// No fiber runs in between, but ThreadSanitizer must know that it is atomic.
inline unsigned long long atomicExch(unsigned long long* to, unsigned long long value) {
  return __atomic_exchange_n(to, value, __ATOMIC_RELAXED);
}
inline unsigned long long atomicAdd(unsigned long long* to, unsigned long long value) {
  return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}

// --- numbers ---
namespace emulator {
template <typename To, typename From>
To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}
template <typename A, typename B>
using Common = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>, std::common_type_t<A, B>>;
}  // namespace emulator
template <typename A, typename B>
inline emulator::Common<A, B> min(A a, B b) {
  using T = emulator::Common<A, B>;
  if constexpr (std::is_floating_point_v<T>) return std::fmin(static_cast<T>(a), static_cast<T>(b));
  return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
}
template <typename A, typename B>
inline emulator::Common<A, B> max(A a, B b) {
  using T = emulator::Common<A, B>;
  if constexpr (std::is_floating_point_v<T>) return std::fmax(static_cast<T>(a), static_cast<T>(b));
  return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}
inline float __uint_as_float(unsigned bits) { return emulator::bits<float>(bits); }
inline unsigned __float_as_uint(float value) { return emulator::bits<unsigned>(value); }
inline float __int_as_float(int bits) { return emulator::bits<float>(bits); }
inline int __float_as_int(float value) { return emulator::bits<int>(value); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline float cospif(float a) { return static_cast<float>(std::cos(3.14159265358979323846 * static_cast<double>(a))); }
inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __ffsll(long long a) { return __builtin_ffsll(a); }
inline int __clz(int a) { return a ? __builtin_clz(static_cast<unsigned>(a)) : 32; }
inline int __clzll(long long a) { return a ? __builtin_clzll(static_cast<unsigned long long>(a)) : 64; }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
