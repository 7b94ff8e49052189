// tmkt::lif_fwd and tmkt::lif_bwd on CUDA.
#include "lif/lif_op.h"
#include "lif/lif_tile.cuh"

namespace tmkt {
namespace {

template <typename T, int kWidth, int kOwn>
__global__ void __launch_bounds__(kThreads) forward_kernel(const LifForwardArgs args) {
  const Along<kWidth> place{(static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth};
  if (place.n >= args.N) return;
  forward_tile<T>(args, Params<kOwn>(args, place.n), PlainInput{}, place, StoreSpikes<T, Along<kWidth>>{args, place});
}

template <typename T, typename Place>
struct StoreGradient {
  static constexpr bool kTakesX = false;
  const LifBackwardArgs& args;
  const Place& place;
  __device__ __forceinline__ void operator()(int64_t t, const float (&)[Place::kWidth],
                                             const float (&g)[Place::kWidth]) const {
    place.store(g, static_cast<T*>(args.grad_x) + t * args.N);
  }
};

// Blocks that share a multiprocessor: as many as leave each thread the registers it needs.
template <int kOwn, bool kSums, int kSurrogate>
constexpr int kBlocks = kSurrogate != kLookedUp ? 8
                        : kSums && kOwn > 1     ? 3
                                                : 4;

template <typename T, int kWidth, int kOwn, bool kSums, int kSurrogate>
__global__ void __launch_bounds__(kThreads, kBlocks<kOwn, kSums, kSurrogate>)
    backward_kernel(const LifBackwardArgs args, float* starts) {
  using Place = Along<kWidth>;
  const Place place{(static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth};
  if (place.n >= args.N) return;
  LifParams<float> sums[kSums ? kWidth : 1] = {};
  const StoreGradient<T, Place> sink{args, place};
  backward_tile<T, kSums, kSurrogate>(args, Params<kOwn>(args, place.n), PlainInput{}, place,
                                      LoadSpikeGradients<T, Place>{args, place}, sink, starts, sums);
  if constexpr (kSums) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      float* out = args.grad_coefficients + place.n + j;
      out[0] = sums[j].a;
      out[args.N] = sums[j].b;
      out[2 * args.N] = sums[j].c;
      out[3 * args.N] = sums[j].v_threshold;
      out[4 * args.N] = sums[j].v_reset;
    }
  }
}

// Whether packs of kWidth neurons may hold several channels, whose parameters then are each neuron's own.
bool mixed_channels(const LifArgs& args, int width) { return args.channels > 1 && args.inner % width != 0; }

void forward_cuda(const LifForwardArgs& args, const Tensor& x) {
  const CudaLaunch launch(x);
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int kWidth = kFullWidth<T>;
    if (args.N % kWidth != 0 || !aligned({args.x, args.v_init, args.spikes, args.v_last, args.v_seq}, 16)) {
      launch(forward_kernel<T, 1, 1>, args.N, 0, args);
    } else if (mixed_channels(args, kWidth)) {
      launch(forward_kernel<T, kWidth, kWidth>, args.N / kWidth, 0, args);
    } else {
      launch(forward_kernel<T, kWidth, 1>, args.N / kWidth, 0, args);
    }
  });
}

template <typename T, int kWidth, int kOwn, bool kSums, int kSurrogate = kLookedUp>
void launch_backward(const CudaLaunch& launch, const LifBackwardArgs& args, float* starts) {
  launch(backward_kernel<T, kWidth, kOwn, kSums, kSurrogate>, args.N / kWidth, History<kWidth>::bytes(args.T), args,
         starts);
}

void backward_cuda(const LifBackwardArgs& args, const Tensor& x) {
  const CudaLaunch launch(x);
  const int64_t chunks = (args.T - 1) / kChunk;
  OptionalTensor scratch;
  if (chunks > 0) scratch = new_empty(x, {chunks, args.N}, ScalarType::Float);
  float* starts = scratch ? data<float>(*scratch) : nullptr;
  const bool whole_words = aligned(
      {args.x, args.v_init, args.grad_spikes, args.grad_v_last, args.grad_v_seq, args.grad_x, args.grad_v_init, starts},
      16);
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int kWidth = kBackwardWidth;
    const bool wide = whole_words && args.N % kWidth == 0, own = mixed_channels(args, kWidth);
    if (args.grad_coefficients) {
      if (!wide) return launch_backward<T, 1, 1, true>(launch, args, starts);
      own ? launch_backward<T, kWidth, kWidth, true>(launch, args, starts)
          : launch_backward<T, kWidth, 1, true>(launch, args, starts);
    } else if (!wide) {
      launch_backward<T, 1, 1, false>(launch, args, starts);
    } else if (own) {
      launch_backward<T, kWidth, kWidth, false>(launch, args, starts);
    } else {
      with_surrogate(args.surrogate.surrogate, [&](auto surrogate) {
        launch_backward<T, kWidth, 1, false, decltype(surrogate)::value>(launch, args, starts);
      });
    }
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tmkt, CUDA, m) {
  m.impl("lif_fwd", TORCH_BOX(&lif_fwd<forward_cuda>));
  m.impl("lif_bwd", TORCH_BOX(&lif_bwd<backward_cuda>));
}

}  // namespace tmkt
