// tmkt::lif_fwd and tmkt::lif_bwd on CUDA.
#include "lif/lif_op.h"
#include "lif/lif_tile.cuh"

namespace tmkt {
namespace {

template <typename T, int kWidth, int kOwn>
__global__ void __launch_bounds__(kThreads) forward_kernel(const LifForwardArgs args) {
  const int64_t n = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (n >= args.N) return;
  forward_tile<T, kWidth>(args, Params<kOwn>(args, n), PlainInput{}, StoreSpikes<T, kWidth>{args, n}, n);
}

template <typename T, int kWidth>
struct StoreGradient {
  T* grad_x;
  __device__ __forceinline__ void operator()(int64_t at, const float (&g)[kWidth]) { store(g, grad_x + at); }
};

template <typename T, int kWidth, int kOwn, bool kSums>
__global__ void __launch_bounds__(kThreads, 4) backward_kernel(const LifBackwardArgs args, float* starts) {
  __shared__ Pack<float, kWidth> history[kChunk][kThreads];
  const int64_t n = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (n >= args.N) return;
  LifParams<float> sums[kSums ? kWidth : 1] = {};
  StoreGradient<T, kWidth> sink{static_cast<T*>(args.grad_x)};
  backward_tile<T, kWidth, kSums>(args, Params<kOwn>(args, n), PlainInput{}, LoadSpikeGradients<T, kWidth>{args, n},
                                  sink, starts, &history[0][threadIdx.x], n, sums);
  if constexpr (kSums) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      float* out = args.grad_coefficients + n + j;
      out[0] = sums[j].a;
      out[args.N] = sums[j].b;
      out[2 * args.N] = sums[j].c;
      out[3 * args.N] = sums[j].v_threshold;
      out[4 * args.N] = sums[j].v_reset;
    }
  }
}

// Parameters in memory are each neuron's own, but for the float that is all of them.
bool own_params(const LifArgs& args) { return args.channels > 1; }

void forward_cuda(const LifForwardArgs& args, const Tensor& x) {
  const CudaLaunch launch(x);
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int kWidth = kForwardWidth<T>;
    if (args.N % kWidth != 0 || !aligned({args.x, args.v_init, args.spikes, args.v_last, args.v_seq}, 16)) {
      launch(forward_kernel<T, 1, 1>, args.N, args);
    } else if (own_params(args)) {
      launch(forward_kernel<T, kWidth, kWidth>, args.N / kWidth, args);
    } else {
      launch(forward_kernel<T, kWidth, 1>, args.N / kWidth, args);
    }
  });
}

template <typename T>
void launch_backward(const CudaLaunch& launch, const LifBackwardArgs& args, float* starts) {
  constexpr int kWidth = kBackwardWidth;
  const bool wide = args.N % kWidth == 0 && aligned({args.x, args.v_init, args.grad_spikes, args.grad_v_last,
                                                     args.grad_v_seq, args.grad_x, args.grad_v_init, starts},
                                                    16);
  if (!args.grad_coefficients && !own_params(args)) {
    wide ? launch(backward_kernel<T, kWidth, 1, false>, args.N / kWidth, args, starts)
         : launch(backward_kernel<T, 1, 1, false>, args.N, args, starts);
  } else if (!args.grad_coefficients) {
    wide ? launch(backward_kernel<T, kWidth, kWidth, false>, args.N / kWidth, args, starts)
         : launch(backward_kernel<T, 1, 1, false>, args.N, args, starts);
  } else {
    wide ? launch(backward_kernel<T, kWidth, kWidth, true>, args.N / kWidth, args, starts)
         : launch(backward_kernel<T, 1, 1, true>, args.N, args, starts);
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
