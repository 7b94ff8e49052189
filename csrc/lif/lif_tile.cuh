// The lif kernels' loops over T, shared with bn_lif. A thread runs kWidth neighbouring neurons through all T steps.
//
//   x [T, N]   t = 0   | n n n n | n n n n | ...      one 16-byte access a thread and step, coalesced over a warp;
//              t = 1   | n n n n | n n n n | ...      the T loads of a thread do not depend on one another,
//              ...         ^ one thread               so many are in flight before the first is used.
#pragma once

#include "common/cuda.h"
#include "lif/lif_args.h"

namespace tmkt {
namespace {

// Backward holds h of this many steps in shared memory, 32 KB a block at most: registers would have to be indexed at
// compile time, and unrolling all of it compiles for minutes. Longer sequences go chunk by chunk.
constexpr int kChunk = 16;

// Neurons a thread takes: 16 bytes of x; in backward no more than 4, for the shared memory that holds h.
template <typename T>
constexpr int kForwardWidth = 16 / sizeof(T);
constexpr int kBackwardWidth = 4;

// The parameters of a thread's neurons: shared by all (kOwn = 1), or each neuron's own.
template <int kOwn>
struct Params {
  LifParams<float> params[kOwn];

  __device__ __forceinline__ Params(const LifArgs& args, int64_t n) {
    if constexpr (kOwn == 1) {
      params[0] = args.params;
    }
    if (kOwn > 1 || args.coefficients) {
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        const float* p = args.coefficients + (n + j) / args.inner % args.channels;
        params[j] = {p[0], p[args.channels], p[2 * args.channels], p[3 * args.channels], p[4 * args.channels]};
      }
    }
  }
  __device__ __forceinline__ const LifParams<float>& operator[](int j) const { return params[kOwn > 1 ? j : 0]; }
};

template <int kWidth, int kOwn>
__device__ __forceinline__ void start(const LifArgs& args, const Params<kOwn>& params, int64_t n, float (&v)[kWidth]) {
  if (args.v_init) {
    load(args.v_init + n, v);
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) v[j] = params[j].v_reset;
  }
}

// What the neurons are charged with: x as it is.
struct PlainInput {
  __device__ __forceinline__ float operator()(int, float x) const { return x; }
};

// Where the spikes of a step go to, and where their gradients come from: as they are.
template <typename T, int kWidth>
struct StoreSpikes {
  const LifForwardArgs& args;
  int64_t n;
  __device__ __forceinline__ void operator()(int64_t t, const float (&s)[kWidth]) const {
    store(s, static_cast<T*>(args.spikes) + t * args.N + n);
  }
};
template <typename T, int kWidth>
struct LoadSpikeGradients {
  const LifBackwardArgs& args;
  int64_t n;
  __device__ __forceinline__ void operator()(int64_t t, float (&grad_s)[kWidth]) const {
    if (args.grad_spikes) load(static_cast<const T*>(args.grad_spikes) + t * args.N + n, grad_s);
  }
};

// Neurons n.. through all T steps; `input` makes their current from x, `spikes(t, s)` takes the spikes of a step.
template <typename T, int kWidth, int kOwn, typename Input, typename Spikes>
__device__ __forceinline__ void forward_tile(const LifForwardArgs& args, const Params<kOwn>& params, const Input& input,
                                             const Spikes& spikes, int64_t n) {
  float v[kWidth], h[kWidth], s[kWidth];
  start(args, params, n, v);
#pragma unroll 4
  for (int64_t t = 0; t < args.T; ++t) {
    const int64_t at = t * args.N + n;
    load(static_cast<const T*>(args.x) + at, h);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      h[j] = lif_charge(params[j], args.reset, v[j], input(j, h[j]));
      s[j] = lif_fires(params[j], args.reset, h[j]) ? 1.0f : 0.0f;
      v[j] = lif_reset(params[j], args.reset, h[j]);
    }
    spikes(t, s);
    if (args.v_seq) store(h, static_cast<T*>(args.v_seq) + at);
  }
  store(v, args.v_last + n);
}

// Advances v through `steps` steps from row x on, keeping h of each in this thread's column of `h`, if given.
template <typename T, int kWidth, int kOwn, typename Input>
__device__ __forceinline__ void charge(const Params<kOwn>& params, const Input& input, Reset reset, const T* x,
                                       int64_t N, int steps, float (&v)[kWidth], Pack<float, kWidth>* h) {
#pragma unroll 4
  for (int k = 0; k < steps; ++k) {
    float row[kWidth];
    load(x + k * N, row);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      row[j] = lif_charge(params[j], reset, v[j], input(j, row[j]));
      v[j] = lif_reset(params[j], reset, row[j]);
    }
    if (h) store(row, h[k * kThreads].value);
  }
}

// The adjoint of forward_tile; `sink(at, gradients)` takes those of the currents whose x is at `at`. `h_column` is this
// thread's column of shared memory, kChunk rows of kThreads packs.
// x is read once for T <= kChunk. For longer T a first sweep writes v at the start of each chunk to `starts`
// [chunks, N], and the chunks are then recomputed from the last to the first; each thread reads only what it wrote.
// kSums: the gradients of the parameters are wanted, and added up in `sums`.
template <typename T, int kWidth, bool kSums, int kOwn, typename Input, typename SpikeGradients, typename Sink>
__device__ __forceinline__ void backward_tile(const LifBackwardArgs& args, const Params<kOwn>& params,
                                              const Input& input, const SpikeGradients& grads, Sink& sink,
                                              float* starts, Pack<float, kWidth>* h_column, int64_t n,
                                              LifParams<float> (&sums)[kSums ? kWidth : 1]) {
  const T* x = static_cast<const T*>(args.x) + n;
  Pack<float, kWidth>* const nowhere = nullptr;
  float v[kWidth], h[kWidth], before[kWidth], grad_v[kWidth] = {};
  start(args, params, n, v);
  const int64_t last = (args.T - 1) / kChunk;
  for (int64_t chunk = 0; chunk < last; ++chunk) {
    store(v, starts + chunk * args.N + n);
    charge<T>(params, input, args.reset, x + chunk * kChunk * args.N, args.N, kChunk, v, nowhere);
  }
  if (args.grad_v_last) load(args.grad_v_last + n, grad_v);
  for (int64_t chunk = last; chunk >= 0; --chunk) {
    const int64_t begin = chunk * kChunk * args.N;
    const int steps = chunk < last ? kChunk : static_cast<int>(args.T - last * kChunk);
    if (chunk < last) load(starts + chunk * args.N + n, v);
    float first[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) first[j] = v[j];
    charge<T>(params, input, args.reset, x + begin, args.N, steps, v, h_column);
    load(h_column[(steps - 1) * kThreads].value, h);
#pragma unroll 2
    for (int k = steps - 1; k >= 0; --k) {
      const int64_t at = begin + k * args.N + n;
      float grad_s[kWidth] = {}, grad_h[kWidth] = {}, grad_x[kWidth], x_again[kWidth];
      grads(chunk * kChunk + k, grad_s);
      if (args.grad_v_seq) load(static_cast<const T*>(args.grad_v_seq) + at, grad_h);
      if constexpr (kSums) load(x + begin + k * args.N, x_again);
      if (k > 0) load(h_column[(k - 1) * kThreads].value, before);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const LifParams<float>& p = params[j];
        const float v_before = k > 0 ? lif_reset(p, args.reset, before[j]) : first[j];
        const float ds_dh = surrogate_derivative(args.surrogate.surrogate, h[j] - p.v_threshold, args.surrogate.alpha,
                                                 args.surrogate.beta);
        const float g = lif_adjoint(p, args.reset, args.detach_reset, h[j], ds_dh, grad_s[j], grad_v[j], grad_h[j]);
        if constexpr (kSums) {
          add(sums[j], lif_parameter_gradients(p, args.reset, args.detach_reset, v_before, input(j, x_again[j]), h[j],
                                               ds_dh, grad_s[j], grad_v[j], g));
        }
        grad_x[j] = p.b * g;
        grad_v[j] = lif_charge_adjoint(p, args.reset, v_before, g);
        h[j] = before[j];
      }
      sink(at, grad_x);
    }
  }
  if (args.grad_v_init) store(grad_v, args.grad_v_init + n);
}

}  // namespace
}  // namespace tmkt
