// tmkt::lif_fwd and tmkt::lif_bwd on CUDA.
#include "lif/lif_neurons.cuh"
#include "lif/lif_op.h"
#include "scan/chunk_starts.cuh"

namespace tmkt {
namespace {

template <typename T, int kWidth, int kOwn>
__global__ void __launch_bounds__(kThreads) forward_kernel(const LifForwardArgs args) {
  const AdjacentNeurons<kWidth> place{(static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth};
  if (place.n >= args.N) return;
  const Params<kOwn> params(args.lif, place.n);
  const StoreSpikes<T, AdjacentNeurons<kWidth>> spikes(args, place);
  with_reset(args.lif.reset,
             [&](auto reset) { scan_forward<T>(args, lif_neurons(params, reset), PlainInput{}, place, spikes); });
}

// Stores grad_x, and sums the gradients of the neurons' parameters.
template <typename T, typename Place, bool kSums>
struct LifGradients {
  static constexpr bool kTakesX = false, kParameters = kSums;
  RowCursor<T, Place> grad_x;
  LifParams<float> sums[kSums ? Place::kWidth : 1] = {};

  __device__ __forceinline__ LifGradients(const LifBackwardArgs& args, const Place& place)
      : grad_x(place, static_cast<T*>(args.grad_x), args.N, args.T - 1, -args.N) {}
  template <typename Neurons>
  __device__ __forceinline__ void operator()(const Neurons& neurons, const float (&)[Place::kWidth],
                                             const float (&g)[Place::kWidth]) {
    float row[Place::kWidth];
#pragma unroll
    for (int j = 0; j < Place::kWidth; ++j) row[j] = neurons[j].current_gradient(g[j]);
    grad_x.store(row);
  }
  __device__ __forceinline__ void parameters(int j, const LifParams<float>& more) { add(sums[j], more); }

  __device__ __forceinline__ void store_sums(const LifBackwardArgs& args, int64_t n) const {
    if constexpr (kSums) {
#pragma unroll
      for (int j = 0; j < Place::kWidth; ++j) {
        float* out = args.grad_coefficients + n + j;
        out[0] = sums[j].a;
        out[args.N] = sums[j].b;
        out[2 * args.N] = sums[j].c;
        out[3 * args.N] = sums[j].v_threshold;
        out[4 * args.N] = sums[j].v_reset;
      }
    }
  }
};

// Blocks per multiprocessor: as many as leave each thread the registers that it needs.
template <int kOwn, bool kSums, int kSurrogate>
constexpr int kBlocks = kSurrogate != kLookedUp ? 7
                        : kSums && kOwn > 1     ? 3
                                                : 4;

template <typename T, int kWidth, int kOwn, bool kSums, int kSurrogate>
__global__ void __launch_bounds__(kThreads, kBlocks<kOwn, kSums, kSurrogate>)
    backward_kernel(const LifBackwardArgs args, float* starts) {
  using Place = AdjacentNeurons<kWidth>;
  const Place place{(static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth};
  if (place.n >= args.N) return;
  const Params<kOwn> params(args.lif, place.n);
  const LoadSpikeGradients<T, Place> gradients(args, place);
  LifGradients<T, Place, kSums> sink(args, place);
  with_neurons<kSurrogate>(args, params, [&](const auto& neurons) {
    scan_backward<T, kSurrogate>(args, neurons, PlainInput{}, place, gradients, sink, starts);
  });
  sink.store_sums(args, place.n);
}

// Calls f with the kOwn of Params for packs of kWidth neurons.
template <int kWidth, typename F>
void with_own(const LifArgs& lif, F f) {
  if (!lif.coefficients) return f(IntTag<0>{});
  if (kWidth == 1 || lif.channels == 1 || lif.inner % kWidth == 0) return f(IntTag<1>{});
  f(IntTag<kWidth>{});
}

template <typename T, int kWidth, int kOwn, bool kSums, int kSurrogate>
void launch_backward(const CudaLaunch& launch, const LifBackwardArgs& args, float* starts) {
  launch(backward_kernel<T, kWidth, kOwn, kSums, kSurrogate>, args.N / kWidth,
         history_bytes<T, kWidth, kSums, float>(args.T), args, starts);
}

class Cuda {
 public:
  explicit Cuda(const Tensor& x) : launch_(x), x_(x) {}

  void forward(const LifForwardArgs& args) const {
    with_float(args.kind, [&](auto type) {
      using T = typename decltype(type)::type;
      constexpr int kWidth = kFullWidth<T>;
      if (args.N % kWidth != 0 || !aligned({args.x, args.v_init, args.spikes, args.v_last, args.v_seq}, 16)) {
        launch_(forward_kernel<T, 1, 1>, args.N, 0, args);
      } else {
        with_own<kWidth>(args.lif,
                         [&](auto own) { launch_(forward_kernel<T, kWidth, own>, args.N / kWidth, 0, args); });
      }
    });
  }

  void backward(const LifBackwardArgs& args) const {
    const ChunkStarts memory(x_, args);
    const bool whole_words = in_whole_words(args, memory);
    float* starts = memory.v;
    with_float(args.kind, [&](auto type) {
      using T = typename decltype(type)::type;
      if (args.N % kBackwardWidth != 0 || !whole_words) {
        args.grad_coefficients ? launch_backward<T, 1, 1, true, kLookedUp>(launch_, args, starts)
                               : launch_backward<T, 1, 1, false, kLookedUp>(launch_, args, starts);
        return;
      }
      with_own<kBackwardWidth>(args.lif, [&](auto own) {
        if (args.grad_coefficients) {
          launch_backward<T, kBackwardWidth, (own > 1 ? own : 1), true, kLookedUp>(launch_, args, starts);
        } else if constexpr (own == 0) {
          with_surrogate(args, [&](auto surrogate) {
            launch_backward<T, kBackwardWidth, 0, false, surrogate>(launch_, args, starts);
          });
        } else {
          launch_backward<T, kBackwardWidth, own, false, kLookedUp>(launch_, args, starts);
        }
      });
    });
  }

 private:
  CudaLaunch launch_;
  const Tensor& x_;
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tmkt, CUDA, m) {
  m.impl("lif_fwd", TORCH_BOX(&lif_fwd<Cuda>));
  m.impl("lif_bwd", TORCH_BOX(&lif_bwd<Cuda>));
}

}  // namespace tmkt
