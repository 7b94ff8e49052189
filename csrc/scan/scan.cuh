// The loop over time on CUDA, forward and backward: a thread runs kWidth neurons of any kind through all T steps.
//
//   x [T, N]   t = 0   | n n n n | n n n n | ...      one 16-byte access per thread and step, coalesced over a warp;
//              t = 1   | n n n n | n n n n | ...      the rows of a thread do not depend on one another, so
//              ...         ^ one thread               kAhead of them are fetched before the first is used.
//
//   Neurons     neurons[j] is neuron j of the thread; LifNeuron (lif/lif_neuron.h) shows the members it needs.
//               Neurons::kOwn: number of parameter sets that a thread holds
//   Place       where the neurons lie in a step: common/rows.cuh
//   Input       input(j, x): the current, computed from x
//   Spikes      spikes(s) takes the spikes of a step
//   Gradients   fetch() and unpack(row, grad): gradients of the spikes, from the last step on
//   Sink        sink(neurons, x, g) takes the gradients g of the charged values, and their x if Sink::kTakesX. If
//               Sink::kParameters, sink.parameters(j, more) takes a step's contribution to the parameters' gradients.
#pragma once

#include "common/rows.cuh"
#include "common/surrogate.cuh"
#include "scan/scan_args.h"

namespace tmkt {
namespace {

constexpr int kAhead = 4;  // rows that a thread fetches at once

// Steps of charged values that backward keeps in shared memory, because registers must be indexed at compile time.
// Longer sequences are processed chunk by chunk.
constexpr int kChunk = 16;

// Neurons per thread: 16 bytes of x. In backward fewer of a half type, because many threads of 72 registers hide the
// memory's latency better than half as many of 100 (measured: benchmarks/results/tuning.md).
template <typename T>
constexpr int kFullWidth = 16 / sizeof(T);
constexpr int kBackwardWidth = 4;

// Number of floats in a neuron's state or charged value: one, or the members of a struct.
template <typename State>
constexpr int kFloatsOf = sizeof(State) / sizeof(float);

template <typename Neurons>
using NeuronOf = std::decay_t<decltype(std::declval<const Neurons&>()[0])>;

// Loads and stores the states of a thread from and to `row` [states, N].
template <typename Place, typename State>
__device__ __forceinline__ void load_states(const Place& place, const float* row, int64_t N,
                                            State (&states)[Place::kWidth]) {
#pragma unroll
  for (int i = 0; i < kFloatsOf<State>; ++i) {
    float values[Place::kWidth];
    place.load(row + i * N, values);
#pragma unroll
    for (int j = 0; j < Place::kWidth; ++j) reinterpret_cast<float*>(&states[j])[i] = values[j];
  }
}
template <typename Place, typename State>
__device__ __forceinline__ void store_states(const Place& place, const State (&states)[Place::kWidth], int64_t N,
                                             float* row) {
#pragma unroll
  for (int i = 0; i < kFloatsOf<State>; ++i) {
    float values[Place::kWidth];
#pragma unroll
    for (int j = 0; j < Place::kWidth; ++j) values[j] = reinterpret_cast<const float*>(&states[j])[i];
    place.store(values, row + i * N + place.n);
  }
}

template <typename Neurons, typename Place, typename State>
__device__ __forceinline__ void first_states(const ScanArgs& args, const Neurons& neurons, const Place& place,
                                             State (&states)[Place::kWidth]) {
  if (args.v_init) {
    load_states(place, args.v_init, args.N, states);
  } else {
#pragma unroll
    for (int j = 0; j < Place::kWidth; ++j) states[j] = neurons[j].rest();
  }
}

// x is the current itself; spikes and their gradients are stored and loaded unchanged.
struct PlainInput {
  __device__ __forceinline__ float operator()(int, float x) const { return x; }
};
template <typename T, typename Place>
struct StoreSpikes {
  RowCursor<T, Place> spikes;
  __device__ __forceinline__ StoreSpikes(const ScanForwardArgs& args, const Place& place)
      : spikes(place, static_cast<T*>(args.spikes), args.N, 0, args.N) {}
  __device__ __forceinline__ void operator()(const float (&s)[Place::kWidth]) { spikes.store(s); }
};
template <typename T, typename Place>
struct LoadSpikeGradients {
  using Row = typename Place::template Row<T>;
  RowCursor<const T, Place> gradients;
  __device__ __forceinline__ LoadSpikeGradients(const ScanBackwardArgs& args, const Place& place)
      : gradients(place, static_cast<const T*>(args.grad_spikes), args.N, args.T - 1, -args.N) {}
  __device__ __forceinline__ Row fetch() { return gradients.fetch(); }
  __device__ __forceinline__ void unpack(const Row& row, float (&grad_s)[Place::kWidth]) const {
    tmkt::unpack(row, grad_s);
  }
};

// The recurrence: advances the states through the next `steps` rows of x, and calls step(k, charged, row) after each
// charge, with that row of x. kPeeled: whole groups of kAhead rows skip the test for the end.
template <bool kPeeled, typename T, typename Place, typename Neurons, typename Input, typename Steps, typename Step>
__device__ __forceinline__ void advance(const Neurons& neurons, const Input& input, RowCursor<const T, Place> x,
                                        Steps steps, typename NeuronOf<Neurons>::State (&states)[Place::kWidth],
                                        const Step& step) {
  const auto group = [&](auto full, Steps begin) {
    typename Place::template Row<T> rows[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (full || begin + k < steps) rows[k] = x.fetch();
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (!full && begin + k >= steps) break;
      float values[Place::kWidth];
      typename NeuronOf<Neurons>::Charged charged[Place::kWidth];
      unpack(rows[k], values);
#pragma unroll
      for (int j = 0; j < Place::kWidth; ++j) {
        charged[j] = neurons[j].charge(states[j], input(j, values[j]));
        states[j] = neurons[j].after(charged[j]);
      }
      step(begin + k, charged, rows[k]);
    }
  };
  Steps begin = 0;
  if constexpr (kPeeled) {
#pragma unroll 1
    for (; begin + kAhead <= steps; begin += kAhead) group(std::true_type{}, begin);
    if (begin < steps) group(std::false_type{}, begin);
  } else {
#pragma unroll 1
    for (; begin < steps; begin += kAhead) group(std::false_type{}, begin);
  }
}

template <typename T, typename Place, typename Neurons, typename Input, typename Spikes>
__device__ __forceinline__ void scan_forward(const ScanForwardArgs& args, const Neurons& neurons, const Input& input,
                                             const Place& place, Spikes spikes) {
  using Neuron = NeuronOf<Neurons>;
  using Charged = typename Neuron::Charged;
  using Row = typename Place::template Row<T>;
  constexpr int kWidth = Place::kWidth;
  RowCursor<T, Place> v_seq(place, static_cast<T*>(args.v_seq), args.N, 0, args.N);
  typename Neuron::State states[kWidth];
  first_states(args, neurons, place, states);
  const RowCursor<const T, Place> x(place, static_cast<const T*>(args.x), args.N, 0, args.N);
  advance<false>(neurons, input, x, args.T, states, [&](int64_t, Charged(&charged)[kWidth], const Row&) {
    float s[kWidth], v[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      s[j] = neurons[j].fires(charged[j]) ? 1.0f : 0.0f;
      v[j] = Neuron::potential(charged[j]);
    }
    spikes(s);
    if (args.v_seq) v_seq.store(v);
  });
  store_states(place, states, args.N, args.v_last);
}

// Steps that backward keeps at a time.
TMKT_INLINE int64_t history_steps(int64_t T) { return T < kChunk ? T : kChunk; }

// A thread's history in dynamic shared memory: the charged values of up to kChunk steps, and x if backward needs it. A
// thread reads only what it wrote, so no barrier is needed; the words of a warp lie side by side. Loops move the
// address of a step along, because computing it from the step's number would take a fifth of backward's instructions.
template <typename T, int kWidth, bool kWithX, typename Charged>
class History {
  static constexpr int kFloats = kWidth * kFloatsOf<Charged>;
  using H = Packed<float, kFloats>;
  using X = Packed<T, kWidth>;
  static constexpr int kBytesOfX = kWithX ? sizeof(X) * kThreads : 0;
  char *h_, *x_;

 public:
  static constexpr int kStepBytes = sizeof(H) * kThreads + kBytesOfX;

  __device__ __forceinline__ History() {
    extern __shared__ uint4 shared_memory[];
    x_ = reinterpret_cast<char*>(shared_memory) + threadIdx.x * sizeof(typename X::Word);
    h_ = reinterpret_cast<char*>(shared_memory) + kBytesOfX + threadIdx.x * sizeof(typename H::Word);
  }
  // `at`: byte offset from the first step, a multiple of kStepBytes.
  __device__ __forceinline__ void keep(int at, const Charged (&charged)[kWidth], const X& x) const {
    put(h_ + at, pack<float>(reinterpret_cast<const float (&)[kFloats]>(charged)));
    if constexpr (kWithX) put(x_ + at, x);
  }
  __device__ __forceinline__ void recall(int at, Charged (&charged)[kWidth]) const {
    unpack(get<H>(h_ + at), reinterpret_cast<float (&)[kFloats]>(charged));
  }
  __device__ __forceinline__ void recall_x(int at, float (&x)[kWidth]) const {
    if constexpr (kWithX) unpack(get<X>(x_ + at), x);
  }

 private:
  template <typename Row>
  static __device__ __forceinline__ void put(char* first, const Row& row) {
#pragma unroll
    for (int i = 0; i < Row::kWords; ++i) {
      reinterpret_cast<typename Row::Word*>(first)[i * kThreads] = row.words[i];
    }
  }
  template <typename Row>
  static __device__ __forceinline__ Row get(const char* first) {
    Row row;
#pragma unroll
    for (int i = 0; i < Row::kWords; ++i) {
      row.words[i] = reinterpret_cast<const typename Row::Word*>(first)[i * kThreads];
    }
    return row;
  }
};

// Bytes of shared memory for backward.
template <typename T, int kWidth, bool kWithX, typename Charged>
size_t history_bytes(int64_t steps) {
  return history_steps(steps) * History<T, kWidth, kWithX, Charged>::kStepBytes;
}

// Steps of gradients that backward holds while the same number is being loaded.
template <int kOwn, bool kParameters, int kSurrogate>
constexpr int kRowsOf = kSurrogate == kLookedUp || (kParameters && kOwn > 1) ? 1 : 2;

// The adjoint of scan_forward. For T <= kChunk it reads x once. For longer T a first sweep writes the states at the
// start of each chunk to `starts` [chunks, states, N], and the chunks are then recomputed from the last to the first;
// each thread reads only what it wrote. kSurrogate: the surrogate's number, or kLookedUp.
template <typename T, int kSurrogate, typename Neurons, typename Input, typename Place, typename Gradients,
          typename Sink>
class BackwardScan {
  using Neuron = NeuronOf<Neurons>;
  using State = typename Neuron::State;
  using Charged = typename Neuron::Charged;
  using XRow = typename Place::template Row<T>;
  static constexpr bool kWithX = Sink::kParameters || Sink::kTakesX, kCommon = kSurrogate != kLookedUp;
  static constexpr int kWidth = Place::kWidth, kRows = kRowsOf<Neurons::kOwn, Sink::kParameters, kSurrogate>;
  using Kept = History<T, kWidth, kWithX, Charged>;
  // Row i is that of the i-th step from the end.
  struct Rows {
    typename Gradients::Row gradient[kRows];
  };

  const ScanBackwardArgs& args;
  const Neurons& neurons;
  const Input& input;
  const Place& place;
  Gradients gradients;
  Sink& sink;
  float* starts;
  const Kept history;
  State states[kWidth], first[kWidth], grad_state[kWidth];  // `first`: before the first step of the chunk

  // Loads the rows of the steps before `end`.
  __device__ __forceinline__ Rows fetch_gradients(int end) {
    Rows rows = {};
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if ((kCommon || args.grad_spikes) && end > i) rows.gradient[i] = gradients.fetch();
    }
    return rows;
  }

  __device__ __forceinline__ RowCursor<const T, Place> rows_from(int64_t chunk) const {
    return {place, static_cast<const T*>(args.x), args.N, chunk * kChunk, args.N};
  }

  // Adds the gradients of v_seq to those of the charged values, in step k of a chunk.
  __device__ __forceinline__ void add_potential_gradients(int64_t step, Charged (&g)[kWidth]) const {
    if (kCommon || !args.grad_v_seq) return;
    float grad_h[kWidth];
    place.load(static_cast<const T*>(args.grad_v_seq) + step * args.N, grad_h);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) Neuron::potential(g[j]) += grad_h[j];
  }

  // Goes back through the kCount steps before `end`: kRows, or the rest of a chunk.
  template <int kCount>
  __device__ __forceinline__ void go_back(int64_t chunk, int end, const Rows& rows) {
    Charged charged[kCount + 1][kWidth];
    float u[kCount * kWidth], ds_dh[kCount * kWidth];
#pragma unroll
    for (int i = 0; i < kCount; ++i) history.recall((end - 1 - i) * Kept::kStepBytes, charged[i]);
    if (end > kCount) history.recall((end - 1 - kCount) * Kept::kStepBytes, charged[kCount]);
#pragma unroll
    for (int i = 0; i < kCount * kWidth; ++i) {
      u[i] = neurons[i % kWidth].above_threshold(charged[i / kWidth][i % kWidth]);
    }
    surrogate_derivatives<kSurrogate>(args.surrogate, u, ds_dh);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int k = end - 1 - i;
      float grad_s[kWidth], x[kWidth];
      Charged g[kWidth];
      State before[kWidth];
      gradients.unpack(rows.gradient[i], grad_s);
      history.recall_x(k * Kept::kStepBytes, x);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        before[j] = i + 1 < kCount || k > 0 ? neurons[j].after(charged[i + 1][j]) : first[j];
        g[j] = neurons[j].adjoint(charged[i][j], ds_dh[i * kWidth + j], grad_s[j], grad_state[j]);
      }
      add_potential_gradients(chunk * kChunk + k, g);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if constexpr (Sink::kParameters) {
          sink.parameters(j, neurons[j].parameter_gradients(before[j], input(j, x[j]), charged[i][j],
                                                            ds_dh[i * kWidth + j], grad_s[j], grad_state[j], g[j]));
        }
        grad_state[j] = neurons[j].charge_adjoint([&] { return before[j]; }, g[j]);
      }
      sink(neurons, x, g);
    }
  }

 public:
  __device__ __forceinline__ BackwardScan(const ScanBackwardArgs& args, const Neurons& neurons, const Input& input,
                                          const Place& place, const Gradients& gradients, Sink& sink, float* starts)
      : args(args),
        neurons(neurons),
        input(input),
        place(place),
        gradients(gradients),
        sink(sink),
        starts(starts),
        grad_state{} {}

  __device__ __forceinline__ void run() {
    const int64_t N = args.N, of_chunk = kFloatsOf<State> * N, last = (args.T - 1) / kChunk;
    first_states(args, neurons, place, states);
    for (int64_t chunk = 0; chunk < last; ++chunk) {
      store_states(place, states, N, starts + chunk * of_chunk);
      advance<true>(neurons, input, rows_from(chunk), kChunk, states,
                    [](int, const Charged(&)[kWidth], const XRow&) {});
    }
    if (args.grad_v_last) load_states(place, args.grad_v_last, N, grad_state);
    for (int64_t chunk = last; chunk >= 0; --chunk) {
      const int steps = chunk < last ? kChunk : static_cast<int>(args.T - last * kChunk);
      Rows rows = fetch_gradients(steps);
      if (chunk < last) load_states(place, starts + chunk * of_chunk, N, states);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) first[j] = states[j];
      advance<true>(neurons, input, rows_from(chunk), steps, states,
                    [&](int k, const Charged(&charged)[kWidth], const XRow& row) {
                      history.keep(k * Kept::kStepBytes, charged, bit_cast<Packed<T, kWidth>>(row));
                    });
      int end = steps;
#pragma unroll 1
      for (; end >= kRows; end -= kRows) {
        const Rows next = fetch_gradients(end - kRows);
        go_back<kRows>(chunk, end, rows);
        rows = next;
      }
      if constexpr (kRows > 1) {
        static_assert(kRows == 2, "one step may be left");
        if (end > 0) go_back<1>(chunk, end, rows);
      }
    }
    if (args.grad_v_init) store_states(place, grad_state, N, args.grad_v_init);
  }
};

template <typename T, int kSurrogate, typename Neurons, typename Input, typename Place, typename Gradients,
          typename Sink>
__device__ __forceinline__ void scan_backward(const ScanBackwardArgs& args, const Neurons& neurons, const Input& input,
                                              const Place& place, const Gradients& gradients, Sink& sink,
                                              float* starts) {
  BackwardScan<T, kSurrogate, Neurons, Input, Place, Gradients, Sink>(args, neurons, input, place, gradients, sink,
                                                                      starts)
      .run();
}

}  // namespace
}  // namespace tmkt
