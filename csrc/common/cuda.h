// What the CUDA files share: stream, launch check, vector loads and stores, conversions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "common/numeric.h"
#include "common/stable.h"

// Lives in libtorch_cuda, which CPU builds of torch lack: a weak reference lets one library load on both.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);

namespace tmkt {

constexpr int kThreads = 128;  // small blocks: lif backward needs up to 180 registers a thread

inline void check_launch() {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "CUDA kernel launch: ", cudaGetErrorString(error));
}

// Makes a tensor's device the current one and holds torch's stream there.
class CudaLaunch {
 public:
  explicit CudaLaunch(const Tensor& like) : guard_(like.get_device_index()) {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream, "this torch was built without CUDA");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(like.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t stream() const { return stream_; }

  // One thread an item, `kThreads` a block.
  template <typename Args, typename... More>
  void operator()(void (*kernel)(Args, More...), int64_t items, const Args& args, More... more) const {
    const int64_t blocks = (items + kThreads - 1) / kThreads;
    STD_TORCH_CHECK(blocks <= INT32_MAX, "a CUDA grid holds 2^31 - 1 blocks at most, this call needs ", blocks);
    kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream_>>>(args, more...);
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

// kWidth neighbours in one access.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T value[kWidth];
};

template <int kWidth, typename T>
__device__ __forceinline__ void load(const T* source, float (&row)[kWidth]) {
  const Pack<T, kWidth> pack = *reinterpret_cast<const Pack<T, kWidth>*>(source);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) row[j] = to_float(pack.value[j]);
}

template <int kWidth, typename T>
__device__ __forceinline__ void store(const float (&row)[kWidth], T* target) {
  Pack<T, kWidth> pack;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) pack.value[j] = from_float<T>(row[j]);
  *reinterpret_cast<Pack<T, kWidth>*>(target) = pack;
}

}  // namespace tmkt
