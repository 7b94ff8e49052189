// tmkt::lif_fwd and tmkt::lif_bwd on CUDA.
#include "lif/lif_op.h"
#include "lif/lif_tile.cuh"

namespace tmkt {
namespace {

template <typename T, int kWidth, int kOwn>
__global__ void __launch_bounds__(kThreads) forward_kernel(const LifForwardArgs args) {
  const Along<kWidth> place{(static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth};
  if (place.n >= args.N) return;
  const Params<kOwn> params(args, place.n);
  const StoreSpikes<T, Along<kWidth>> sink(args, place);
  with_reset(args.reset, [&](auto reset) { forward_tile<T>(args, reset, params, PlainInput{}, place, sink); });
}

template <typename T, typename Place>
struct StoreGradient {
  static constexpr bool kTakesX = false;
  Walk<T, Place> grad_x;
  __device__ __forceinline__ StoreGradient(const LifBackwardArgs& args, const Place& place)
      : grad_x(place, static_cast<T*>(args.grad_x), args.N, args.T - 1, -args.N) {}
  template <int kOwn>
  __device__ __forceinline__ void operator()(const Params<kOwn>& params, const float (&)[Place::kWidth],
                                             const float (&g)[Place::kWidth]) {
    float row[Place::kWidth];
#pragma unroll
    for (int j = 0; j < Place::kWidth; ++j) row[j] = params[j].b * g[j];
    grad_x.store(row);
  }
};

// Blocks that share a multiprocessor: as many as leave each thread the registers it needs.
template <int kOwn, bool kSums, int kSurrogate>
constexpr int kBlocks = kSurrogate != kLookedUp ? 7
                        : kSums && kOwn > 1     ? 3
                                                : 4;

template <typename T, int kWidth, int kOwn, bool kSums, int kSurrogate>
__global__ void __launch_bounds__(kThreads, kBlocks<kOwn, kSums, kSurrogate>)
    backward_kernel(const LifBackwardArgs args, float* starts) {
  using Place = Along<kWidth>;
  const Place place{(static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth};
  if (place.n >= args.N) return;
  const Params<kOwn> params(args, place.n);
  const LoadSpikeGradients<T, Place> gradients(args, place);
  StoreGradient<T, Place> sink(args, place);
  LifParams<float> sums[kSums ? kWidth : 1] = {};
  with_adjoint<kSurrogate>(args, [&](auto reset, auto detach) {
    backward_tile<T, kSums, kSurrogate>(args, reset, detach, params, PlainInput{}, place, gradients, sink, starts,
                                        sums);
  });
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

// Calls f with Params' kOwn for packs of kWidth neurons.
template <int kWidth, typename F>
void with_own(const LifArgs& args, F f) {
  if (!args.coefficients) return f(IntTag<0>{});
  if (kWidth == 1 || args.channels == 1 || args.inner % kWidth == 0) return f(IntTag<1>{});
  f(IntTag<kWidth>{});
}

void forward_cuda(const LifForwardArgs& args, const Tensor& x) {
  const CudaLaunch launch(x);
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int kWidth = kFullWidth<T>;
    if (args.N % kWidth != 0 || !aligned({args.x, args.v_init, args.spikes, args.v_last, args.v_seq}, 16)) {
      launch(forward_kernel<T, 1, 1>, args.N, 0, args);
    } else {
      with_own<kWidth>(args, [&](auto own) { launch(forward_kernel<T, kWidth, own>, args.N / kWidth, 0, args); });
    }
  });
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
    const auto run = [&](auto kernel, int64_t width, size_t bytes) {
      launch(kernel, args.N / width, bytes, args, starts);
    };
    if (args.N % kWidth != 0 || !whole_words) {
      args.grad_coefficients ? run(backward_kernel<T, 1, 1, true, kLookedUp>, 1, kept_bytes<T, 1, true>(args.T))
                             : run(backward_kernel<T, 1, 1, false, kLookedUp>, 1, kept_bytes<T, 1, false>(args.T));
      return;
    }
    const size_t bytes =
        args.grad_coefficients ? kept_bytes<T, kWidth, true>(args.T) : kept_bytes<T, kWidth, false>(args.T);
    with_own<kWidth>(args, [&](auto own) {
      if (args.grad_coefficients) {
        run(backward_kernel<T, kWidth, (own > 1 ? own : 1), true, kLookedUp>, kWidth, bytes);
      } else if constexpr (own == 0) {
        with_surrogate(args,
                       [&](auto surrogate) { run(backward_kernel<T, kWidth, 0, false, surrogate>, kWidth, bytes); });
      } else {
        run(backward_kernel<T, kWidth, own, false, kLookedUp>, kWidth, bytes);
      }
    });
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tmkt, CUDA, m) {
  m.impl("lif_fwd", TORCH_BOX(&lif_fwd<forward_cuda>));
  m.impl("lif_bwd", TORCH_BOX(&lif_bwd<backward_cuda>));
}

}  // namespace tmkt
