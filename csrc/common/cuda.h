// Helpers shared by the CUDA files: stream, launch check, vector loads and stores, conversions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "common/numeric.h"
#include "common/stable.h"

// Defined in libtorch_cuda, which CPU builds of torch lack. A weak reference lets the same library load on both.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);

// CUDA's <assert.h> declares it only without NDEBUG, but bad values must stop the program in release builds too.
extern "C" __device__ void __assert_fail(const char* assertion, const char* file, unsigned int line,
                                         const char* function) noexcept(true);

namespace tmkt {

// Stops the program with a message that names the function of the user.
__device__ __forceinline__ void require(bool condition, const char* message, const char* function) {
  if (!condition) __assert_fail(message, __FILE__, __LINE__, function);
}

constexpr int kThreads = 128;

inline void check_cuda(cudaError_t error, const char* what) {
  check(error == cudaSuccess, what, ": ", cudaGetErrorString(error));
}

inline void check_launch() { check_cuda(cudaGetLastError(), "CUDA kernel launch"); }

// Makes a tensor's device current and holds torch's stream on it.
class CudaLaunch {
 public:
  explicit CudaLaunch(const Tensor& like) : guard_(like.get_device_index()) {
    check(aoti_torch_get_current_cuda_stream != nullptr, "this torch was built without CUDA");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(like.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  // Launches one thread per item, `kThreads` per block, with `shared_bytes` of dynamic shared memory per block. Without
  // items it launches nothing.
  template <typename... Parameters, typename... Arguments>
  void operator()(void (*kernel)(Parameters...), int64_t items, size_t shared_bytes,
                  const Arguments&... arguments) const {
    blocks(kernel, (items + kThreads - 1) / kThreads, shared_bytes, arguments...);
  }

  // Launches the given number of blocks of `kThreads`.
  template <typename... Parameters, typename... Arguments>
  void blocks(void (*kernel)(Parameters...), int64_t count, size_t shared_bytes, const Arguments&... arguments) const {
    if (count == 0) return;
    check(count <= INT32_MAX, "a CUDA grid holds 2^31 - 1 blocks at most, this call needs ", count);
    constexpr size_t kWithoutAsking = 48 << 10;  // bytes of shared memory that any kernel may use without opting in
    if (shared_bytes > kWithoutAsking) {
      check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                      cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
                 "shared memory of a CUDA kernel");
    }
    kernel<<<static_cast<unsigned>(count), kThreads, shared_bytes, stream_>>>(arguments...);
    check_launch();
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

inline bool aligned(std::initializer_list<const void*> pointers, size_t bytes) {
  for (const void* pointer : pointers) {
    if (reinterpret_cast<uintptr_t>(pointer) % bytes) return false;
  }
  return true;
}

// n / d and n % d, for 0 <= n and 0 < d. The hardware divides neither 32 nor 64 bits, but 32 bits take a fifth of the
// instructions.
struct Division {
  int64_t quotient, remainder;
  __device__ __forceinline__ Division(int64_t n, int64_t d) {
    if ((n | d) <= static_cast<int64_t>(UINT32_MAX)) {
      const uint32_t q = static_cast<uint32_t>(n) / static_cast<uint32_t>(d);
      quotient = q;
      remainder = static_cast<uint32_t>(n) - q * static_cast<uint32_t>(d);
    } else {
      quotient = n / d;
      remainder = n - quotient * d;
    }
  }
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(uint8_t x) { return x; }
__device__ __forceinline__ float to_float(int16_t x) { return x; }
__device__ __forceinline__ float to_float(BFloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ __forceinline__ float to_float(Float16 x) { return __half2float(__ushort_as_half(x.bits)); }

template <typename T>
__device__ __forceinline__ T from_float(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
  } else {
    return {__half_as_ushort(__float2half_rn(x))};
  }
}

template <int kBytes>
struct WordOf;
template <>
struct WordOf<1> {
  using type = unsigned char;
};
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <>
struct WordOf<4> {
  using type = unsigned int;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<16> {
  using type = uint4;
};

// kWidth neighbours as in memory, in words of at most 16 bytes: before sm_100 no access is wider, and on sm_100 a wider
// one would require an alignment that nothing checks.
template <typename T, int kWidth>
struct Packed {
  static constexpr int kPerWord = sizeof(T) * kWidth <= 16 ? kWidth : 16 / sizeof(T);
  static constexpr int kWords = kWidth / kPerWord;
  using Word = typename WordOf<sizeof(T) * kPerWord>::type;
  struct Values {
    T value[kPerWord];
  };
  struct Pairs {
    uint32_t pair[sizeof(Word) < 4 ? 1 : sizeof(Word) / 4];
  };
  Word words[kWords];
};

// Loads the neighbours without using them, so that several loads are in flight before the first unpack waits.
template <int kWidth, typename T>
__device__ __forceinline__ Packed<T, kWidth> fetch(const T* source) {
  Packed<T, kWidth> packed;
#pragma unroll
  for (int i = 0; i < packed.kWords; ++i) {
    packed.words[i] = reinterpret_cast<const typename Packed<T, kWidth>::Word*>(source)[i];
  }
  return packed;
}

template <typename T, int kWidth>
__device__ __forceinline__ void unpack(const Packed<T, kWidth>& packed, float (&row)[kWidth]) {
#pragma unroll
  for (int i = 0; i < packed.kWords; ++i) {
    if constexpr (std::is_same_v<T, BFloat16> && packed.kPerWord > 1) {  // in pairs: one instruction per value
      const auto pairs = bit_cast<typename Packed<T, kWidth>::Pairs>(packed.words[i]);
#pragma unroll
      for (int j = 0; j < packed.kPerWord; ++j) {
        const uint32_t pair = pairs.pair[j / 2];
        row[i * packed.kPerWord + j] = __uint_as_float(j % 2 ? pair & 0xffff0000u : pair << 16);
      }
    } else {
      const auto values = bit_cast<typename Packed<T, kWidth>::Values>(packed.words[i]);
#pragma unroll
      for (int j = 0; j < packed.kPerWord; ++j) row[i * packed.kPerWord + j] = to_float(values.value[j]);
    }
  }
}

template <typename T, int kWidth>
__device__ __forceinline__ Packed<T, kWidth> pack(const float (&row)[kWidth]) {
  Packed<T, kWidth> packed;
#pragma unroll
  for (int i = 0; i < packed.kWords; ++i) {
    typename Packed<T, kWidth>::Values values;
#pragma unroll
    for (int j = 0; j < packed.kPerWord; ++j) values.value[j] = from_float<T>(row[i * packed.kPerWord + j]);
    packed.words[i] = bit_cast<typename Packed<T, kWidth>::Word>(values);
  }
  return packed;
}

template <int kWidth, typename T>
__device__ __forceinline__ void load(const T* source, float (&row)[kWidth]) {
  unpack(fetch<kWidth>(source), row);
}

// An intrinsic, because nvcc splits the assignment of a whole word. It streams past the caches, because no kernel here
// reads its own output.
template <int kWidth, typename T>
__device__ __forceinline__ void store(const float (&row)[kWidth], T* target) {
  const Packed<T, kWidth> packed = pack<T>(row);
#pragma unroll
  for (int i = 0; i < packed.kWords; ++i) {
    __stcs(reinterpret_cast<typename Packed<T, kWidth>::Word*>(target) + i, packed.words[i]);
  }
}

}  // namespace tmkt
