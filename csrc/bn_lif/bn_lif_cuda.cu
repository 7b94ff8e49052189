// tmkt::bn_lif_fwd and tmkt::bn_lif_bwd on CUDA. Sums over neurons have a fixed order: no atomics.
#include "bn_lif/bn_lif_op.h"
#include "lif/lif_tile.cuh"

namespace tmkt {
namespace {

__device__ __forceinline__ int64_t channel_of(const BnArgs& bn, int64_t n) { return n / bn.inner % bn.channels; }

template <int kWidth>
struct NormalisedInput {
  float mean[kWidth], scale[kWidth], bias[kWidth];

  __device__ __forceinline__ NormalisedInput(const BnArgs& bn, int64_t n) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const int64_t channel = channel_of(bn, n + j);
      mean[j] = bn.mean[channel];
      scale[j] = bn.scale[channel];
      bias[j] = bn.bias[channel];
    }
  }
  __device__ __forceinline__ float operator()(int j, float x) const { return (x - mean[j]) * scale[j] + bias[j]; }
};

// Of each neuron its mean over t, minus the channel's first value, and the squared deviations from the mean, as sums of
// differences from the neuron's own first value: moments [2, N].
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    moments_kernel(const LifArgs args, int64_t channels, int64_t inner, float* moments) {
  const int64_t n = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (n >= args.N) return;
  const T* x = static_cast<const T*>(args.x);
  const float steps = static_cast<float>(args.T);
  float first[kWidth], row[kWidth], sum[kWidth] = {}, squares[kWidth] = {};
  load(x + n, first);
#pragma unroll 4
  for (int64_t t = 1; t < args.T; ++t) {
    load(x + t * args.N + n, row);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const float d = row[j] - first[j];
      sum[j] += d;
      squares[j] += d * d;
    }
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const float mean = sum[j] / steps;
    const float pivot = to_float(x[(n + j) / inner % channels * inner]);
    squares[j] -= sum[j] * mean;
    sum[j] = (first[j] - pivot) + mean;
  }
  store(sum, moments + n);
  store(squares, moments + args.N + n);
}

constexpr int kReduceThreads = 256;

// Sum over the block, in the order of a tree; all threads get it.
__device__ __forceinline__ double block_sum(double value) {
  __shared__ double sums[kReduceThreads];
  __syncthreads();
  sums[threadIdx.x] = value;
  for (int width = kReduceThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) sums[threadIdx.x] += sums[threadIdx.x + width];
  }
  __syncthreads();
  return sums[0];
}

// Sum over the neurons of channel blockIdx.x of f(n).
template <typename F>
__device__ __forceinline__ double channel_sum(int64_t N, int64_t channels, int64_t inner, F f) {
  double sum = 0.0;
  // Short planes a thread each, long ones by all threads together: without a division for each value.
  const int64_t plane = channels * inner, first = blockIdx.x * inner;
  const bool together = inner >= 32;
  const int64_t planes_step = together ? 1 : kReduceThreads, values_step = together ? kReduceThreads : 1;
  for (int64_t p = (together ? 0 : threadIdx.x) * plane; p < N; p += planes_step * plane) {
    for (int64_t i = together ? threadIdx.x : 0; i < inner; i += values_step) sum += f(p + first + i);
  }
  return block_sum(sum);
}

template <typename T>
__global__ void __launch_bounds__(kReduceThreads) statistics_kernel(const LifArgs args, int64_t channels, int64_t inner,
                                                                    const float* moments, float* mean, float* var) {
  const double neurons = static_cast<double>(args.N / channels);
  const auto sum = [&](auto f) { return channel_sum(args.N, channels, inner, f); };
  const double center = sum([&](int64_t n) { return static_cast<double>(moments[n]); }) / neurons;
  const double between = sum([&](int64_t n) { return (moments[n] - center) * (moments[n] - center); });
  const double within = sum([&](int64_t n) { return static_cast<double>(moments[args.N + n]); });
  if (threadIdx.x > 0) return;
  const double pivot = to_float(static_cast<const T*>(args.x)[blockIdx.x * inner]);
  mean[blockIdx.x] = static_cast<float>(pivot + center);
  var[blockIdx.x] = static_cast<float>((within / static_cast<double>(args.T) + between) / neurons);
}

__global__ void __launch_bounds__(kThreads) scale_kernel(const BnPrepare p, int64_t channels) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= channels) return;
  p.scale[c] = bn_scale(p.var[c], p.weight ? p.weight[c] : 1.0f, p.eps);
  if (p.zero_bias) p.zero_bias[c] = 0.0f;
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) forward_kernel(const BnLifForwardArgs args) {
  const int64_t n = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (n >= args.N) return;
  const Along<kWidth> place{n};
  forward_tile<T>(args, Params<1>(args, n), NormalisedInput<kWidth>(args.bn, n), place,
                  StoreSpikes<T, Along<kWidth>>{args, place});
}

// The pixel of a thread, with 2x2 pooling: four neighbouring threads have those of a cell. A cell that an odd height or
// width cuts off has its pixels twice, and so has the last one in what is left of a block: computed, and stored, twice
// alike.
struct Pixel {
  int64_t n, cell, step;  // neuron; pooled value, and values in a step of these
  bool whole, first;      // of the cell: all pixels are there; this one stores

  __device__ __forceinline__ Pixel(const LifArgs& args, const BnArgs& bn) {
    const int64_t width = bn.pool_width, height = bn.inner / width, columns = (width + 1) / 2;
    const int64_t of_plane = (height + 1) / 2 * columns, planes = args.N / bn.inner;
    const int64_t slot =
        min(static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, 4 * of_plane * planes - 4 + threadIdx.x % 4);
    const int64_t plane = slot / 4 / of_plane, in_plane = slot / 4 % of_plane, corner = slot % 4;
    const int64_t row = in_plane / columns * 2, column = in_plane % columns * 2;
    n = plane * bn.inner + min(row + corner / 2, height - 1) * width + min(column + corner % 2, width - 1);
    step = planes * (height / 2) * (width / 2);
    cell = plane * (height / 2) * (width / 2) + row / 2 * (width / 2) + column / 2;
    whole = row + 1 < height && column + 1 < width;
    first = corner == 0;
  }
};

int64_t pool_slots(const LifArgs& args, const BnArgs& bn) {
  const int64_t width = bn.pool_width, height = bn.inner / width;
  return args.N / bn.inner * ((height + 1) / 2) * ((width + 1) / 2) * 4;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) pooled_forward_kernel(const BnLifForwardArgs args) {
  const Pixel pixel(args, args.bn);
  const NormalisedInput<1> input(args.bn, pixel.n);
  T* pooled = static_cast<T*>(args.spikes) + pixel.cell;
  const auto sink = [&](int64_t t, const float (&s)[1]) {
    float sum = s[0] + __shfl_xor_sync(0xffffffffu, s[0], 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (pixel.whole && pixel.first) pooled[t * pixel.step] = from_float<T>(0.25f * sum);
  };
  forward_tile<T>(args, Params<1>(args, pixel.n), input, Along<1>{pixel.n}, sink);
}

// Stores the current's gradient g, times scale where the statistics are given, and adds up g and g (x - mean).
template <typename T, int kWidth>
struct SumGradient {
  static constexpr bool kTakesX = true;
  const NormalisedInput<kWidth>& input;
  const BnLifBackwardArgs& args;
  Along<kWidth> place;
  float g_sum[kWidth], gd_sum[kWidth];

  __device__ __forceinline__ void operator()(int64_t t, const float (&x)[kWidth], const float (&g)[kWidth]) {
    float row[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      g_sum[j] += g[j];
      gd_sum[j] += g[j] * (x[j] - input.mean[j]);
      row[j] = args.batch_statistics ? g[j] : g[j] * input.scale[j];
    }
    place.store(row, static_cast<T*>(args.grad_x) + t * args.N);
  }
};

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads, 4) backward_kernel(const BnLifBackwardArgs args, float* starts) {
  const Along<kWidth> place{(static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth};
  if (place.n >= args.N) return;
  const NormalisedInput<kWidth> input(args.bn, place.n);
  LifParams<float> none[1];
  SumGradient<T, kWidth> sink{input, args, place, {}, {}};
  backward_tile<T, false>(args, Params<1>(args, place.n), input, place,
                          LoadSpikeGradients<T, Along<kWidth>>{args, place}, sink, starts, none);
  place.store(sink.g_sum, args.sums);
  place.store(sink.gd_sum, args.sums + args.N);
}

template <typename T>
struct LoadPooledGradients {
  using Row = Packed<T, 1>;
  const T* grad_pooled;
  int64_t step;
  bool whole;
  __device__ __forceinline__ Row fetch(int64_t t) const {
    return whole ? tmkt::fetch<1>(grad_pooled + t * step) : Row{};
  }
  __device__ __forceinline__ void unpack(const Row& row, float (&grad_s)[1]) const {
    tmkt::unpack(row, grad_s);
    grad_s[0] *= 0.25f;
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads, 4) pooled_backward_kernel(const BnLifBackwardArgs args, float* starts) {
  const Pixel pixel(args, args.bn);
  const NormalisedInput<1> input(args.bn, pixel.n);
  const Along<1> place{pixel.n};
  LifParams<float> none[1];
  SumGradient<T, 1> sink{input, args, place, {}, {}};
  const LoadPooledGradients<T> gradients{static_cast<const T*>(args.grad_spikes) + pixel.cell, pixel.step, pixel.whole};
  backward_tile<T, false>(args, Params<1>(args, pixel.n), input, place, gradients, sink, starts, none);
  args.sums[pixel.n] = sink.g_sum[0];
  args.sums[args.N + pixel.n] = sink.gd_sum[0];
}

__global__ void __launch_bounds__(kReduceThreads)
    gradients_kernel(const BnLifBackwardArgs args, const float* var, float eps) {
  const int64_t N = args.N, channels = args.bn.channels, inner = args.bn.inner, c = blockIdx.x;
  const float* sums = args.sums;
  const double g = channel_sum(N, channels, inner, [=](int64_t n) { return static_cast<double>(sums[n]); });
  const double gd = channel_sum(N, channels, inner, [=](int64_t n) { return static_cast<double>(sums[N + n]); });
  if (threadIdx.x > 0) return;
  const BnGradients grad = bn_gradients(g, gd, var[c], eps, args.T * N / channels);
  args.grad_weight[c] = grad.weight;
  args.grad_bias[c] = grad.bias;
  args.g_mean[c] = grad.g_mean;
  args.slope[c] = grad.slope;
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) finish_kernel(const BnLifBackwardArgs args) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (at >= args.T * args.N) return;
  T* grad_x = static_cast<T*>(args.grad_x) + at;
  float x[kWidth], g[kWidth];
  load(static_cast<const T*>(args.x) + at, x);
  load(grad_x, g);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const int64_t c = channel_of(args.bn, at + j);  // a step is a whole number of turns through the channels
    g[j] = args.bn.scale[c] * (g[j] - args.g_mean[c] - (x[j] - args.bn.mean[c]) * args.slope[c]);
  }
  store(g, grad_x);
}

class Cuda {
 public:
  explicit Cuda(const Tensor& x) : launch_(x), x_(x) {}

  void forward(const BnLifForwardArgs& args, const BnPrepare& prepare) const {
    const BnArgs& bn = args.bn;
    if (prepare.batch_mean) statistics(args, bn.channels, bn.inner, prepare.batch_mean, prepare.batch_var);
    launch_(scale_kernel, bn.channels, 0, prepare, bn.channels);
    if (bn.pool_width > 0) return pooled_forward(args);
    with_float(args.kind, [&](auto type) {
      using T = typename decltype(type)::type;
      constexpr int kWidth = kFullWidth<T>;
      if (args.N % kWidth == 0 && aligned({args.x, args.v_init, args.spikes, args.v_last, args.v_seq}, 16)) {
        launch_(forward_kernel<T, kWidth>, args.N / kWidth, 0, args);
      } else {
        launch_(forward_kernel<T, 1>, args.N, 0, args);
      }
    });
  }

  void backward(BnLifBackwardArgs args, const BnPrepare& prepare) const {
    Tensor of_neurons = new_empty(x_, {2, args.N}, ScalarType::Float);
    args.sums = data<float>(of_neurons);
    launch_(scale_kernel, args.bn.channels, 0, prepare, args.bn.channels);
    if (args.N > 0) neurons_backward(args);
    gradients_kernel<<<blocks(args.bn.channels), kReduceThreads, 0, launch_.stream()>>>(args, prepare.var, prepare.eps);
    check_launch();
    if (args.N > 0 && args.batch_statistics) finish(args);
  }

 private:
  void statistics(const LifArgs& args, int64_t channels, int64_t inner, float* mean, float* var) const {
    Tensor moments = new_empty(x_, {2, args.N}, ScalarType::Float);
    float* values = data<float>(moments);
    with_float(args.kind, [&](auto type) {
      using T = typename decltype(type)::type;
      constexpr int kWidth = kFullWidth<T>;
      if (args.N % kWidth == 0 && aligned({args.x, values}, 16)) {
        launch_(moments_kernel<T, kWidth>, args.N / kWidth, 0, args, channels, inner, values);
      } else {
        launch_(moments_kernel<T, 1>, args.N, 0, args, channels, inner, values);
      }
      statistics_kernel<T>
          <<<blocks(channels), kReduceThreads, 0, launch_.stream()>>>(args, channels, inner, values, mean, var);
      check_launch();
    });
  }

  void pooled_forward(const BnLifForwardArgs& args) const {
    with_float(args.kind, [&](auto type) {
      launch_(pooled_forward_kernel<typename decltype(type)::type>, pool_slots(args, args.bn), 0, args);
    });
  }

  void neurons_backward(const BnLifBackwardArgs& args) const {
    const int64_t chunks = (args.T - 1) / kChunk;
    Tensor starts = new_empty(x_, {chunks, args.N}, ScalarType::Float);
    float* start = data<float>(starts);
    with_float(args.kind, [&](auto type) {
      using T = typename decltype(type)::type;
      constexpr int kWidth = 4;
      if (args.bn.pool_width > 0) {
        launch_(pooled_backward_kernel<T>, pool_slots(args, args.bn), History<1>::bytes(args.T), args, start);
      } else if (args.N % kWidth == 0 && aligned({args.x, args.v_init, args.grad_spikes, args.grad_v_last,
                                                  args.grad_v_seq, args.grad_x, args.grad_v_init, args.sums, start},
                                                 16)) {
        launch_(backward_kernel<T, kWidth>, args.N / kWidth, History<kWidth>::bytes(args.T), args, start);
      } else {
        launch_(backward_kernel<T, 1>, args.N, History<1>::bytes(args.T), args, start);
      }
    });
  }

  void finish(const BnLifBackwardArgs& args) const {
    with_float(args.kind, [&](auto type) {
      using T = typename decltype(type)::type;
      constexpr int kWidth = kFullWidth<T>;
      const int64_t values = args.T * args.N;
      if (values % kWidth == 0 && aligned({args.x, args.grad_x}, 16)) {
        launch_(finish_kernel<T, kWidth>, values / kWidth, 0, args);
      } else {
        launch_(finish_kernel<T, 1>, values, 0, args);
      }
    });
  }

  static unsigned blocks(int64_t channels) {
    STD_TORCH_CHECK(channels <= INT32_MAX, "bn_lif: at most 2^31 - 1 channels, got ", channels);
    return static_cast<unsigned>(channels);
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
