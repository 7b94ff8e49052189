// tmkt::mixup_fwd and tmkt::mixup_bwd on CUDA: a thread makes kWidth neighbouring elements of one row (t, b).
#include "common/cuda.h"
#include "mixup/mixup_op.h"

// Defined by CUDA's <assert.h> only where NDEBUG is not: a bad index must stop the program in release builds too.
extern "C" __device__ void __assert_fail(const char* assertion, const char* file, unsigned int line,
                                         const char* function) noexcept(true);

namespace tmkt {
namespace {

constexpr int kWidth = 4;  // 16 bytes of a float source, the widest access there is

__device__ __forceinline__ void require(bool condition, const char* message) {
  if (!condition) __assert_fail(message, __FILE__, __LINE__, "time_step_mixup");
}

__device__ __forceinline__ int64_t source_of(const int64_t* index, int64_t b) { return index ? index[b] : b; }

__device__ __forceinline__ int64_t switch_step_of(const MixupArgs& args, int64_t b) {
  const int64_t step = args.switch_step[b];
  require(step >= 0 && step <= args.T, "switch_step: expected values in 0..T");
  return step;
}

// The row's source decides the type, so the branch is the same for a whole block.
template <int kPack>
__device__ __forceinline__ void load_pixels(PixelKind kind, const void* source, int64_t at, float (&row)[kPack]) {
  switch (kind) {
    case PixelKind::kUInt8:
      return load(static_cast<const uint8_t*>(source) + at, row);
    case PixelKind::kInt16:
      return load(static_cast<const int16_t*>(source) + at, row);
    case PixelKind::kFloat32:
      return load(static_cast<const float*>(source) + at, row);
    case PixelKind::kBFloat16:
      return load(static_cast<const BFloat16*>(source) + at, row);
    case PixelKind::kFloat16:
      return load(static_cast<const Float16*>(source) + at, row);
  }
}

template <int kPack>
__device__ __forceinline__ void store_pixels(PixelKind kind, const float (&row)[kPack], void* target, int64_t at) {
  if (kind == PixelKind::kFloat32) return store(row, static_cast<float*>(target) + at);
  if (kind == PixelKind::kBFloat16) return store(row, static_cast<BFloat16*>(target) + at);
  store(row, static_cast<Float16*>(target) + at);
}

// Splits a flat work item into (row, position in the row); false beyond the last row.
template <int kPack>
__device__ __forceinline__ bool locate(int64_t rows, int64_t row_elements, int64_t* row, int64_t* at) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t per_row = row_elements / kPack;
  *row = item / per_row;
  *at = item % per_row * kPack;
  return *row < rows;
}

template <typename T, int kPack>
__global__ void __launch_bounds__(kThreads) forward_kernel(const MixupForwardArgs args) {
  const int64_t elements = args.C * args.plane;
  int64_t row, at;
  if (!locate<kPack>(args.T * args.B, elements, &row, &at)) return;
  const int64_t t = row / args.B, b = row % args.B;
  const bool is_event = t >= switch_step_of(args, b);
  float pixels[kPack];
  if (is_event) {
    const int64_t e = source_of(args.event_index, b);
    require(e >= 0 && e < args.event_count, "event_index: out of range");
    load_pixels(args.event_kind, args.events, (t * args.event_count + e) * elements + at, pixels);
  } else {
    const int64_t i = source_of(args.static_index, b);
    require(i >= 0 && i < args.static_count, "static_index: out of range");
    const int64_t pixel = args.static_channels == 1 ? at % args.plane : at;  // one plane fills every channel
    load_pixels(args.static_kind, args.static_images, i * args.static_channels * args.plane + pixel, pixels);
  }
  const float scale = is_event ? args.event_scale : args.static_scale;
#pragma unroll
  for (int j = 0; j < kPack; ++j) pixels[j] *= scale;
  store(pixels, static_cast<T*>(args.mixed) + row * elements + at);
}

template <typename T, int kPack>
__device__ __forceinline__ void accumulate(const MixupBackwardArgs& args, int64_t t, int64_t b, int64_t at,
                                           float (&sum)[kPack]) {
  float grad[kPack];
  load(static_cast<const T*>(args.grad) + (t * args.B + b) * args.C * args.plane + at, grad);
#pragma unroll
  for (int j = 0; j < kPack; ++j) sum[j] += grad[j];
}

// A thread owns kPack gradient elements and gathers its samples in the order of b (and t): no atomics, same bits
// every run.
template <typename T, int kPack>
__global__ void __launch_bounds__(kThreads) backward_events_kernel(const MixupBackwardArgs args) {
  const int64_t elements = args.C * args.plane;
  int64_t row, at;
  if (!locate<kPack>(args.T * args.event_count, elements, &row, &at)) return;
  const int64_t t = row / args.event_count, e = row % args.event_count;
  float sum[kPack] = {};
  for (int64_t b = 0; b < args.B; ++b) {
    if (source_of(args.event_index, b) == e && t >= switch_step_of(args, b)) accumulate<T>(args, t, b, at, sum);
  }
#pragma unroll
  for (int j = 0; j < kPack; ++j) sum[j] *= args.event_scale;
  store_pixels(args.event_kind, sum, args.grad_events, row * elements + at);
}

template <typename T, int kPack>
__global__ void __launch_bounds__(kThreads) backward_static_kernel(const MixupBackwardArgs args) {
  const int64_t elements = args.static_channels * args.plane;
  int64_t i, at;
  if (!locate<kPack>(args.static_count, elements, &i, &at)) return;
  float sum[kPack] = {};
  for (int64_t b = 0; b < args.B; ++b) {
    if (source_of(args.static_index, b) != i) continue;
    const int64_t steps = switch_step_of(args, b);
    for (int64_t t = 0; t < steps; ++t) {
      for (int64_t plane = 0; plane < args.C * args.plane; plane += elements) {
        accumulate<T>(args, t, b, plane + at, sum);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kPack; ++j) sum[j] *= args.static_scale;
  store_pixels(args.static_kind, sum, args.grad_static, i * elements + at);
}

// Packs never straddle a plane or a row, and every access is aligned.
template <int kPack>
bool wide(const MixupArgs& args, std::initializer_list<const void*> pointers) {
  return args.plane % kPack == 0 && aligned(pointers, 16);
}

void forward_cuda(const MixupForwardArgs& args, const Tensor& events) {
  const CudaLaunch launch(events);
  const int64_t elements = args.T * args.B * args.C * args.plane;
  with_float(args.mixed_kind, [&](auto type) {
    using T = typename decltype(type)::type;
    if (wide<kWidth>(args, {args.static_images, args.events, args.mixed})) {
      launch(forward_kernel<T, kWidth>, elements / kWidth, 0, args);
    } else {
      launch(forward_kernel<T, 1>, elements, 0, args);
    }
  });
}

void backward_cuda(const MixupBackwardArgs& args, const Tensor& events) {
  const CudaLaunch launch(events);
  const int64_t static_elements = args.static_count * args.static_channels * args.plane;
  const int64_t event_elements = args.T * args.event_count * args.C * args.plane;
  with_float(args.grad_kind, [&](auto type) {
    using T = typename decltype(type)::type;
    if (wide<kWidth>(args, {args.grad, args.grad_static, args.grad_events})) {
      if (args.grad_static) launch(backward_static_kernel<T, kWidth>, static_elements / kWidth, 0, args);
      if (args.grad_events) launch(backward_events_kernel<T, kWidth>, event_elements / kWidth, 0, args);
    } else {
      if (args.grad_static) launch(backward_static_kernel<T, 1>, static_elements, 0, args);
      if (args.grad_events) launch(backward_events_kernel<T, 1>, event_elements, 0, args);
    }
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tmkt, CUDA, m) {
  m.impl("mixup_fwd", TORCH_BOX(&mixup_fwd<forward_cuda>));
  m.impl("mixup_bwd", TORCH_BOX(&mixup_bwd<backward_cuda>));
}

}  // namespace tmkt
