// tmkt::bn_lif_fwd and tmkt::bn_lif_bwd on CUDA. Sums have a fixed order, without atomics.
//
// A block works on the neurons of one channel or a few. It writes one set of sums per channel to scratch memory, and a
// small kernel adds up the sets of all blocks.
#include "bn_lif/bn_lif_op.h"
#include "bn_lif/packs.cuh"
#include "bn_lif/sums.cuh"
#include "bn_lif/tiling.cuh"
#include "lif/lif_neurons.cuh"
#include "scan/chunk_starts.cuh"

namespace tmkt {
namespace {

constexpr int kMomentsBlocks = 6;  // per multiprocessor; with more registers each, too few loads would be in flight

template <typename T, typename Pack>
__global__ void __launch_bounds__(kThreads, kMomentsBlocks)
    moments_kernel(const ScanArgs args, const Tiling tiling, double* of_blocks) {
  constexpr int kOwn = Pack::kOwn;
  using Place = typename Pack::Place;
  const Item item(tiling);
  Pack pack(tiling, item);
  double moments[kOwn][kMoments] = {};
  if (pack.there) {
    Moments<T, Place> of_thread;
    each_sample<false>(tiling, args.N, pack, [&] {
      of_thread.add(RowCursor<const T, Place>(pack.place, static_cast<const T*>(args.x), args.N, 0, args.N), args.T);
    });
    float pivot[kOwn];
#pragma unroll
    for (int j = 0; j < kOwn; ++j) pivot[j] = pivot_of<T>(args, tiling.inner, pack.channel[j]);
    of_thread.add_to(moments, pivot);
  }
  add_up(tiling, item, moments, of_blocks);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    statistics_kernel(const ScanArgs args, const Tiling tiling, const double* of_blocks, float* mean, float* var) {
  double sums[kMoments];
  if (!channel_sums(tiling, of_blocks, sums)) return;
  const Statistics of_channel(sums, pivot_of<T>(args, tiling.inner, blockIdx.x), tiling, args.T);
  mean[blockIdx.x] = of_channel.mean;
  var[blockIdx.x] = of_channel.var;
}

// Normalises the channels of a thread.
template <int kOwn>
struct NormalisedInput {
  float mean[kOwn], scale[kOwn], bias[kOwn];

  __device__ __forceinline__ NormalisedInput(const BnArgs& bn, const BnPrepare& prepare,
                                             const int64_t (&channel)[kOwn]) {
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      const int64_t c = channel[j];
      mean[j] = bn.mean[c];
      scale[j] = bn_scale(prepare.var[c], prepare.weight ? prepare.weight[c] : 1.0f, prepare.eps);
      bias[j] = prepare.zero_bias ? 0.0f : bn.bias[c];
    }
  }

  __device__ __forceinline__ float operator()(int j, float x) const {
    const int own = kOwn > 1 ? j : 0;
    return (x - mean[own]) * scale[own] + bias[own];
  }
};

template <typename T, typename Pack>
__global__ void __launch_bounds__(kThreads) forward_kernel(const BnLifForwardArgs args, const Tiling tiling) {
  const Item item(tiling);
  Pack pack(tiling, item);
  if (!pack.there) return;
  const NormalisedInput<Pack::kOwn> input(args.bn, args.prepare, pack.channel);
  const Params<0> params(args.lif, 0);
  with_reset(args.lif.reset, [&](auto reset) {
    each_sample<true>(tiling, args.N, pack, [&] {
      scan_forward<T>(args, lif_neurons(params, reset), input, pack.place, pack.template spikes<T>(args, tiling));
    });
  });
}

// With statistics of the batch, backward takes two passes, each of which computes the gradient g of h: the first sums
// g and g (x - mean), the second writes grad_x. With given statistics, one pass does both.
enum class Pass { kSums, kGradient, kBoth };

// grad_x = of_g g + of_x (x - mean) + constant, per channel. The gradient of the current is b g; statistics of the
// batch subtract g_mean and slope (x - mean) from it.
template <int kOwn, Pass kPass>
struct Gradient {
  float mean[kOwn], of_g[kOwn], of_x[kOwn], constant[kOwn];

  __device__ __forceinline__ Gradient(const BnLifBackwardArgs& args, const NormalisedInput<kOwn>& input,
                                      const int64_t (&channel)[kOwn]) {
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      mean[j] = input.mean[j];
      of_g[j] = input.scale[j] * args.lif.params.b;
      if constexpr (kPass == Pass::kGradient) {
        of_x[j] = -input.scale[j] * args.slope[channel[j]];
        constant[j] = -input.scale[j] * args.g_mean[channel[j]];
      }
    }
  }
};

template <typename T, typename Place, int kOwn, Pass kPass>
struct CurrentGradients {
  static constexpr bool kTakesX = true, kParameters = false;
  const Gradient<kOwn, kPass>& gradient;
  float (&sums)[kOwn][kGradientSums];
  RowCursor<T, Place> grad_x;

  __device__ __forceinline__ CurrentGradients(const BnLifBackwardArgs& args, const Place& place,
                                              const Gradient<kOwn, kPass>& gradient, float (&sums)[kOwn][kGradientSums])
      : gradient(gradient), sums(sums), grad_x(place, static_cast<T*>(args.grad_x), args.N, args.T - 1, -args.N) {}
  template <typename Neurons>
  __device__ __forceinline__ void operator()(const Neurons&, const float (&x)[Place::kWidth],
                                             const float (&g)[Place::kWidth]) {
    float row[Place::kWidth];
#pragma unroll
    for (int j = 0; j < Place::kWidth; ++j) {
      const int own = kOwn > 1 ? j : 0;
      const float d = x[j] - gradient.mean[own];
      if constexpr (kPass != Pass::kGradient) {
        sums[own][0] += g[j];
        sums[own][1] = multiply_add(g[j], d, sums[own][1]);
      }
      if constexpr (kPass == Pass::kBoth) row[j] = gradient.of_g[own] * g[j];
      if constexpr (kPass == Pass::kGradient) {
        row[j] = multiply_add(gradient.of_g[own], g[j], multiply_add(gradient.of_x[own], d, gradient.constant[own]));
      }
    }
    if constexpr (kPass != Pass::kSums) grad_x.store(row);
  }
};

// Calls f with the surrogate's number, or with kLookedUp for packs that do not merit kernels of their own.
template <typename Pack, typename F>
void with_surrogate_of(const BnLifBackwardArgs& args, F f) {
  if constexpr (Pack::kCommon) {
    with_surrogate(args, f);
  } else {
    f(IntTag<kLookedUp>{});
  }
}

// Blocks per multiprocessor: as many as leave each thread the registers that it needs.
template <typename T, typename Pack, int kSurrogate>
constexpr int kBlocksOf = kSurrogate == kLookedUp                        ? 4
                          : Pack::kOwn > 1 || sizeof(T) == sizeof(float) ? 5
                                                                         : 7;

template <typename T, typename Pack, int kSurrogate, Pass kPass>
__global__ void __launch_bounds__(kThreads, kBlocksOf<T, Pack, kSurrogate>)
    backward_kernel(const BnLifBackwardArgs args, const Tiling tiling, float* starts, double* of_blocks) {
  using Place = typename Pack::Place;
  constexpr int kOwn = Pack::kOwn;
  const Item item(tiling);
  Pack pack(tiling, item);
  float sums[kOwn][kGradientSums] = {};
  if (pack.there) {
    const NormalisedInput<kOwn> input(args.bn, args.prepare, pack.channel);
    const Gradient<kOwn, kPass> gradient(args, input, pack.channel);
    const Params<0> params(args.lif, 0);
    with_neurons<kSurrogate>(args, params, [&](const auto& neurons) {
      each_sample<kPass == Pass::kGradient>(tiling, args.N, pack, [&] {
        CurrentGradients<T, Place, kOwn, kPass> sink(args, pack.place, gradient, sums);
        scan_backward<T, kSurrogate>(args, neurons, input, pack.place, pack.template gradients<T>(args, tiling), sink,
                                     starts);
      });
    });
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
#pragma unroll
      for (int s = 0; s < kGradientSums; ++s) sums[j][s] *= args.lif.params.b;
    }
  }
  if constexpr (kPass != Pass::kGradient) add_up(tiling, item, sums, of_blocks);
}

__global__ void __launch_bounds__(kThreads)
    gradients_kernel(const BnLifBackwardArgs args, const Tiling tiling, const double* of_blocks) {
  double sums[kGradientSums];
  if (!channel_sums(tiling, of_blocks, sums)) return;
  const int64_t c = blockIdx.x, count = args.T * tiling.samples * tiling.inner;
  const BnGradients grad = bn_gradients(sums[0], sums[1], args.prepare.var[c], args.prepare.eps, count);
  args.grad_weight[c] = grad.weight;
  args.grad_bias[c] = grad.bias;
  args.g_mean[c] = grad.g_mean;
  args.slope[c] = grad.slope;
}

class Cuda {
 public:
  explicit Cuda(const Tensor& x) : launch_(x), x_(x) {}

  void forward(const BnLifForwardArgs& args) const {
    with_float(args.kind, [&](auto type) {
      using T = typename decltype(type)::type;
      const bool whole_words = aligned({args.x, args.v_init, args.spikes, args.v_last, args.v_seq}, 16);
      with_pack<kFullWidth<T>, kFullWidth<T>, 4>(args.bn, whole_words, [&](auto tag) {
        using Pack = typename decltype(tag)::type;
        if (args.prepare.batch_mean) statistics<T>(args, args.bn, args.prepare.batch_mean, args.prepare.batch_var);
        const Tiling tiling = Pack::tiling(args.N, args.bn, sizeof(T), kShortTurns);
        launch_.blocks(forward_kernel<T, Pack>, tiling.blocks(), 0, args, tiling);
      });
    });
  }

  void backward(const BnLifBackwardArgs& args) const {
    const ChunkStarts memory(x_, args);
    const bool whole_words = in_whole_words(args, memory);
    float* starts = memory.v;
    with_float(args.kind, [&](auto type) {
      using T = typename decltype(type)::type;
      with_pack<4, 4, 2>(args.bn, whole_words, [&](auto tag) {
        using Pack = typename decltype(tag)::type;
        const Tiling summing = Pack::tiling(args.N, args.bn, sizeof(T), long_turns<Pack>(args.T, kMostSummed)),
                     writing = Pack::tiling(args.N, args.bn, sizeof(T), kShortTurns);
        const Tensor sums = new_sums(summing, kGradientSums);
        double* of_blocks = data<double>(sums);
        const size_t bytes =
            std::max(history_bytes<T, Pack::Place::kWidth, true, float>(args.T), bytes_to_add_up<Pack>(kGradientSums));
        const auto run = [&](auto kernel, const Tiling& tiling, const BnLifBackwardArgs& of_pass) {
          launch_.blocks(kernel, tiling.blocks(), bytes, of_pass, tiling, starts, of_blocks);
        };
        const auto add_up_channels = [&] {
          launch_.blocks(gradients_kernel, args.bn.channels, 0, args, summing, of_blocks);
        };
        if (!args.batch_statistics) {
          run(backward_kernel<T, Pack, kLookedUp, Pass::kBoth>, summing, args);
          return add_up_channels();
        }
        BnLifBackwardArgs first = args;
        first.grad_v_init = nullptr;
        with_surrogate_of<Pack>(args, [&](auto surrogate) {
          run(backward_kernel<T, Pack, surrogate, Pass::kSums>, summing, first);
          add_up_channels();
          run(backward_kernel<T, Pack, surrogate, Pass::kGradient>, writing, args);
        });
      });
    });
  }

 private:
  template <typename T>
  void statistics(const ScanArgs& args, BnArgs bn, float* mean, float* var) const {
    bn.pool_width = 0;  // only spikes are pooled
    with_pack<kFullWidth<T>, 4, 4>(bn, aligned({args.x}, 16), [&](auto tag) {
      using Pack = typename decltype(tag)::type;
      if constexpr (!Pack::kPools) {
        const Tiling tiling = Pack::tiling(args.N, bn, sizeof(T), long_turns<Pack>(args.T, kMostOfNeuron));
        const Tensor sums = new_sums(tiling, kMoments);
        double* of_blocks = data<double>(sums);
        launch_.blocks(moments_kernel<T, Pack>, tiling.blocks(), bytes_to_add_up<Pack>(kMoments), args, tiling,
                       of_blocks);
        launch_.blocks(statistics_kernel<T>, bn.channels, 0, args, tiling, of_blocks, mean, var);
      }
    });
  }

  Tensor new_sums(const Tiling& tiling, int64_t count) const {
    return new_empty(x_, {tiling.channels, tiling.sets(), count}, ScalarType::Double);
  }

  CudaLaunch launch_;
  const Tensor& x_;
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tmkt, CUDA, m) {
  m.impl("bn_lif_fwd", TORCH_BOX(&bn_lif_fwd<Cuda>));
  m.impl("bn_lif_bwd", TORCH_BOX(&bn_lif_bwd<Cuda>));
}

}  // namespace tmkt
