// tmkt::lif_fwd and tmkt::lif_bwd on CUDA: a thread runs kWidth neighbouring neurons through all T steps.
//
//   x [T, N]   t = 0   | n n n n | n n n n | ...      one 16-byte access a thread and step, coalesced over a warp;
//              t = 1   | n n n n | n n n n | ...      the T loads of a thread do not depend on one another,
//              ...         ^ one thread               so many are in flight before the first is used.
#include "common/cuda.h"
#include "lif/lif_op.h"

namespace tmkt {
namespace {

// Backward holds h of this many steps in registers. Longer sequences go chunk by chunk, see backward_kernel.
constexpr int kChunk = 16;

template <int kWidth>
__device__ __forceinline__ void start(const LifArgs& args, int64_t n, float (&v)[kWidth]) {
  if (args.v_init) {
    load(args.v_init + n, v);
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) v[j] = args.params.v_reset;
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) forward_kernel(const LifForwardArgs args) {
  const int64_t n = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (n >= args.N) return;
  float v[kWidth], h[kWidth], s[kWidth];
  start(args, n, v);
#pragma unroll 4
  for (int64_t t = 0; t < args.T; ++t) {
    const int64_t at = t * args.N + n;
    load(static_cast<const T*>(args.x) + at, h);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      h[j] = lif_charge(args.params, v[j], h[j]);
      s[j] = lif_fires(args.params, h[j]) ? 1.0f : 0.0f;
      v[j] = lif_reset(args.params, args.reset, h[j]);
    }
    store(s, static_cast<T*>(args.spikes) + at);
    if (args.v_seq) store(h, static_cast<T*>(args.v_seq) + at);
  }
  store(v, args.v_last + n);
}

// Advances v through `steps` <= kChunk steps from row x on, keeping h of each.
template <typename T, int kWidth>
__device__ __forceinline__ void charge_chunk(const LifParams& p, Reset reset, const T* x, int64_t N, int steps,
                                             float (&v)[kWidth], float (&h)[kChunk][kWidth]) {
#pragma unroll
  for (int k = 0; k < kChunk; ++k) {
    if (k < steps) load(x + k * N, h[k]);
  }
#pragma unroll
  for (int k = 0; k < kChunk; ++k) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      h[k][j] = lif_charge(p, v[j], h[k][j]);
      v[j] = lif_reset(p, reset, h[k][j]);
    }
  }
}

// x is read once for T <= kChunk. For longer T a first sweep writes v at the start of each chunk to `starts`
// [chunks, N], and the chunks are then recomputed from the last to the first; each thread reads only what it wrote.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads, 3) backward_kernel(const LifBackwardArgs args, float* starts) {
  const int64_t n = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (n >= args.N) return;
  const T* x = static_cast<const T*>(args.x) + n;
  float v[kWidth], grad_v[kWidth] = {}, h[kChunk][kWidth];
  start(args, n, v);
  const int64_t last = (args.T - 1) / kChunk;
  for (int64_t chunk = 0; chunk < last; ++chunk) {
    store(v, starts + chunk * args.N + n);
    charge_chunk<T>(args.params, args.reset, x + chunk * kChunk * args.N, args.N, kChunk, v, h);
  }
  if (args.grad_v_last) load(args.grad_v_last + n, grad_v);
  for (int64_t chunk = last; chunk >= 0; --chunk) {
    const int64_t begin = chunk * kChunk * args.N;
    const int steps = chunk < last ? kChunk : static_cast<int>(args.T - last * kChunk);
    if (chunk < last) load(starts + chunk * args.N + n, v);
    charge_chunk<T>(args.params, args.reset, x + begin, args.N, steps, v, h);
#pragma unroll
    for (int k = kChunk - 1; k >= 0; --k) {
      if (k >= steps) continue;
      const int64_t at = begin + k * args.N + n;
      float grad_s[kWidth] = {}, grad_h[kWidth] = {}, grad_x[kWidth];
      if (args.grad_spikes) load(static_cast<const T*>(args.grad_spikes) + at, grad_s);
      if (args.grad_v_seq) load(static_cast<const T*>(args.grad_v_seq) + at, grad_h);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float ds_dh = lif_ds_dh(args.params, args.surrogate, h[k][j]);
        const float g =
            lif_adjoint(args.params, args.reset, args.detach_reset, h[k][j], ds_dh, grad_s[j], grad_v[j], grad_h[j]);
        grad_x[j] = args.params.b * g;
        grad_v[j] = args.params.a * g;
      }
      store(grad_x, static_cast<T*>(args.grad_x) + at);
    }
  }
  if (args.grad_v_init) store(grad_v, args.grad_v_init + n);
}

// Neurons a thread takes: 16 bytes of x; in backward no more than 4, for the registers that hold h.
template <typename T>
constexpr int kForwardWidth = 16 / sizeof(T);
constexpr int kBackwardWidth = 4;

void forward_cuda(const LifForwardArgs& args, const Tensor& x) {
  const CudaLaunch launch(x);
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int kWidth = kForwardWidth<T>;
    if (args.N % kWidth == 0 && aligned({args.x, args.v_init, args.spikes, args.v_last, args.v_seq}, 16)) {
      launch(forward_kernel<T, kWidth>, args.N / kWidth, args);
    } else {
      launch(forward_kernel<T, 1>, args.N, args);
    }
  });
}

template <typename T>
void launch_backward(const CudaLaunch& launch, const LifBackwardArgs& args, float* starts) {
  constexpr int kWidth = kBackwardWidth;
  const bool wide = args.N % kWidth == 0 && aligned({args.x, args.v_init, args.grad_spikes, args.grad_v_last,
                                                     args.grad_v_seq, args.grad_x, args.grad_v_init, starts},
                                                    16);
  if (wide) {
    launch(backward_kernel<T, kWidth>, args.N / kWidth, args, starts);
  } else {
    launch(backward_kernel<T, 1>, args.N, args, starts);
  }
}

void backward_cuda(const LifBackwardArgs& args, const Tensor& x) {
  const CudaLaunch launch(x);
  const int64_t chunks = (args.T - 1) / kChunk;
  OptionalTensor starts;
  if (chunks > 0) starts = new_empty(x, {chunks, args.N}, ScalarType::Float);
  float* starts_data = starts ? data<float>(*starts) : nullptr;
  with_float(args.kind, [&](auto type) { launch_backward<typename decltype(type)::type>(launch, args, starts_data); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tmkt, CUDA, m) {
  m.impl("lif_fwd", TORCH_BOX(&lif_fwd<forward_cuda>));
  m.impl("lif_bwd", TORCH_BOX(&lif_bwd<backward_cuda>));
}

}  // namespace tmkt
