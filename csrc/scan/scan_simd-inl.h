// The loop over time on the CPU, forward and backward: K vectors of neurons of any kind, through all T steps.
//
//   Neurons     neurons[k] is the neuron of vector k; LifNeuron (lif/lif_neuron.h) shows the members it needs
//   Lanes       where the vectors lie in a row [N]: common/lanes_simd-inl.h
//   Input       input(t, k, x): the current, computed from x
//   Spikes      spikes(lanes, t, k, fired, held) takes the spikes
//   Gradients   gradients(lanes, t, k): gradients of the spikes; gradients.present() is false if there are none
//   Sink        sink(lanes, t, k, g, held) takes the gradients of the currents. If Sink::kParameters and
//               sink.wants_parameters(), sink.parameters(k, more) takes a step's contribution to their gradients.
//   Prefetcher  forward_row(lanes, t) and backward_row(lanes, t) return f; f(k) prefetches during the work on vector k
//
// Most arguments are passed by value, and sizes are copied first, because GCC would otherwise reload
// them after every store.
#pragma once

#include <algorithm>

#include "common/lanes_simd-inl.h"
#include "common/surrogate_simd-inl.h"
#include "scan/scan_args.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

// Consecutive rows of a tile are a time step (N values) apart, too far for the hardware prefetcher. Each row is
// prefetched this many rows early (trials: benchmarks/results/tuning.md).
constexpr int64_t kRowsAhead = 8;

// Walks the rows that a thread reads, tile after tile, kRowsAhead rows early: the rows of x and, if the spikes have
// gradients, the rows of these from the last to the first.
template <typename T>
class RowPrefetcher {
 public:
  RowPrefetcher(const ScanArgs& args, const void* grad_spikes, int64_t n, int64_t tile)
      : x_(static_cast<const T*>(args.x)),
        grad_spikes_(static_cast<const T*>(grad_spikes)),
        T_(args.T),
        N_(args.N),
        rows_(grad_spikes ? 2 * args.T : args.T),
        row_(kRowsAhead % rows_),
        n_(n + kRowsAhead / rows_ * tile) {}

  struct Row {
    const T* first;
    TMKT_INLINE void operator()(int k) const { prefetch(first, k); }
  };
  template <int K, typename Lanes>
  TMKT_INLINE Row forward_row(Lanes, int64_t) {
    return next_row(K * kLanes);
  }
  template <int K, typename Lanes>
  TMKT_INLINE Row backward_row(Lanes, int64_t) {
    return grad_spikes_ ? next_row(K * kLanes) : Row{nullptr};
  }
  // `width`: neurons in the current tile.
  TMKT_INLINE Row next_row(int64_t width) {
    const T* first = (row_ < T_ ? x_ + row_ * N_ : grad_spikes_ + (2 * T_ - 1 - row_) * N_) + n_;
    if (++row_ >= rows_) {
      row_ = 0;
      n_ += width;
    }
    return {first};
  }

 private:
  const T *x_, *grad_spikes_;
  int64_t T_, N_, rows_, row_, n_;
};

// x is the current itself; spikes, their gradients and those of x are stored and loaded unchanged.
struct PlainInput {
  TMKT_INLINE Floats operator()(int64_t, int, Floats x) const { return x; }
};
template <typename T>
struct StoreSpikes {
  T* spikes;  // [T, N]
  int64_t N;

  template <typename Lanes>
  TMKT_INLINE void operator()(Lanes lanes, int64_t t, int k, Ints fired, Words& held) const {
    lanes.store_spikes(fired, spikes + t * N, k, held);
  }
};
template <typename T, bool kAlways>
struct LoadSpikeGradients {
  const T* grad_spikes;  // [T, N], or null unless kAlways
  int64_t N;

  TMKT_INLINE bool present() const { return kAlways || grad_spikes; }
  template <typename Lanes>
  TMKT_INLINE Floats operator()(Lanes lanes, int64_t t, int k) const {
    return present() ? lanes.load(grad_spikes + t * N, k) : Floats{};
  }
};

template <typename T>
struct StoreGradients {
  static constexpr bool kParameters = false;
  T* grad_x;  // [T, N]
  int64_t N;

  template <typename Lanes>
  TMKT_INLINE void operator()(Lanes lanes, int64_t t, int k, Floats g, Words& held) const {
    lanes.store(g, grad_x + t * N, k, held);
  }
};

// Specialisations of the backward loop. kPlain is the common training case: the spikes have a gradient, v_seq has
// none, the reset is detached and no parameter is learned, so that the innermost loop has no branches. kPlainAtan also
// inlines the default surrogate. kAnything is everything else.
enum class BackwardVariant { kAnything, kPlain, kPlainAtan };

// Vectors whose surrogate derivatives are computed together: enough to overlap the divisions with other work, and to
// amortise the call of surrogates that are not inlined.
template <int K, BackwardVariant kVariant>
constexpr int kDerivatives = std::min(K, kVariant == BackwardVariant::kPlainAtan ? 4 : 8);

// Number of vectors in a neuron's state or charged value: one, or the members of a struct.
template <typename State>
constexpr int kVectorsOf = sizeof(State) / sizeof(Floats);

template <typename State>
TMKT_INLINE Floats& vector_of(State& state, int i) {
  return reinterpret_cast<Floats*>(&state)[i];
}

// Loads the state of vector k from `row` [states, N], and stores the states of all vectors to it.
template <typename State, typename Lanes>
TMKT_INLINE State load_state(Lanes lanes, const float* row, int64_t N, int k) {
  State state;
  for (int i = 0; i < kVectorsOf<State>; ++i) vector_of(state, i) = lanes.load(row + i * N, k);
  return state;
}
template <typename Lanes, typename State, int K>
TMKT_INLINE void store_states(Lanes lanes, State (&states)[K], int64_t N, float* row) {
  Words held{};
  for (int i = 0; i < kVectorsOf<State>; ++i) {
    for (int k = 0; k < K; ++k) lanes.store(vector_of(states[k], i), row + i * N, k, held);
  }
}

// State of vector k before the first step.
template <typename Neuron, typename Lanes>
TMKT_INLINE typename Neuron::State first_state(const ScanArgs& args, Lanes lanes, const Neuron& neuron, int k) {
  using State = typename Neuron::State;
  return args.v_init ? load_state<State>(lanes, args.v_init, args.N, k) : neuron.rest();
}

template <typename Neurons>
using NeuronOf = std::decay_t<decltype(std::declval<const Neurons&>()[0])>;

// The recurrence: advances the states through all T steps, and calls step(t, k, charged) after each charge.
template <typename T, bool kUnroll, typename Neurons, typename Lanes, typename Input, typename Prefetcher,
          typename State, int K, typename Step>
TMKT_INLINE void advance(const ScanArgs& args, Lanes lanes, const Neurons& neurons, Input input, Prefetcher& prefetcher,
                         State (&states)[K], const Step& step) {
  const T* x = static_cast<const T*>(args.x);
  const int64_t N = args.N;
  for (int64_t t = 0; t < args.T; ++t) {
    const auto prefetch_vector = prefetcher.template forward_row<K>(lanes, t);
    const auto vector = [&](int k) __attribute__((always_inline)) {
      prefetch_vector(k);
      const auto charged = neurons[k].charge(states[k], input(t, k, lanes.load(x + t * N, k)));
      step(t, k, charged);
      states[k] = neurons[k].after(charged);
    };
    if constexpr (kUnroll) {
#pragma GCC unroll 16
      for (int k = 0; k < K; ++k) vector(k);
    } else {
      for (int k = 0; k < K; ++k) vector(k);
    }
  }
}

// kUnroll keeps the states of up to 16 vectors in registers.
template <typename T, int K, bool kUnroll, typename Neurons, typename Lanes, typename Input, typename Spikes,
          typename Prefetcher>
TMKT_INLINE void scan_forward(const ScanForwardArgs& args, Lanes lanes, const Neurons& neurons, Input input,
                              Spikes spikes, Prefetcher& prefetcher) {
  using Neuron = NeuronOf<Neurons>;
  T* v_seq = static_cast<T*>(args.v_seq);
  const int64_t N = args.N;
  typename Neuron::State states[K];
  for (int k = 0; k < K; ++k) states[k] = first_state(args, lanes, neurons[k], k);
  Words held{}, held_v{};
  advance<T, kUnroll>(args, lanes, neurons, input, prefetcher, states,
                      [&](int64_t t, int k, typename Neuron::Charged charged) __attribute__((always_inline)) {
                        spikes(lanes, t, k, neurons[k].fires(charged), held);
                        if (v_seq) lanes.store(Neuron::potential(charged), v_seq + t * N, k, held_v);
                      });
  store_states(lanes, states, args.N, args.v_last);
}

// The adjoint of scan_forward. It runs the recurrence again and keeps the charged values in `history` [T, K].
template <typename T, BackwardVariant kVariant, int K, typename Neurons, typename Lanes, typename Input,
          typename Gradients, typename Sink, typename Prefetcher>
TMKT_INLINE void scan_backward(const ScanBackwardArgs& args, Lanes lanes, const Neurons& neurons, Input input,
                               Gradients gradients, Sink& sink, Prefetcher& prefetcher, float* history) {
  using Neuron = NeuronOf<Neurons>;
  using State = typename Neuron::State;
  using Charged = typename Neuron::Charged;
  constexpr int kBlock = kDerivatives<K, kVariant>;
  static_assert(K % kBlock == 0);
  const Derivatives<kVariant == BackwardVariant::kPlainAtan> derivatives(args.surrogate);
  const T* grad_v_seq = kVariant != BackwardVariant::kAnything ? nullptr : static_cast<const T*>(args.grad_v_seq);
  const int64_t N = args.N;
  auto* all_charged = reinterpret_cast<Charged*>(history);
  State states[K];  // states in the forward sweep; their gradients in the backward sweep
  for (int k = 0; k < K; ++k) states[k] = first_state(args, lanes, neurons[k], k);
  advance<T, false>(args, lanes, neurons, input, prefetcher, states,
                    [=](int64_t t, int k, Charged charged)
                        __attribute__((always_inline)) { all_charged[t * K + k] = charged; });
  for (int k = 0; k < K; ++k) {
    states[k] = args.grad_v_last ? load_state<State>(lanes, args.grad_v_last, args.N, k) : State{};
  }
  Words held{};
  for (int64_t t = args.T - 1; t >= 0; --t) {
    const Charged* charged = all_charged + t * K;
    const auto prefetch_vector = prefetcher.template backward_row<K>(lanes, t);
    for (int block = 0; block < K; block += kBlock) {
      Floats ds_dh[kBlock];
      for (int j = 0; j < kBlock; ++j) ds_dh[j] = neurons[block + j].above_threshold(charged[block + j]);
      derivatives(ds_dh, kBlock);
      for (int j = 0; j < kBlock; ++j) {
        const int k = block + j;
        const auto& neuron = neurons[k];
        if (gradients.present()) prefetch_vector(k);
        const Floats grad_s = gradients(lanes, t, k);
        Charged g = neuron.adjoint(charged[k], ds_dh[j], grad_s, states[k]);
        Neuron::potential(g) += grad_v_seq ? lanes.load(grad_v_seq + t * N, k) : Floats{};
        sink(lanes, t, k, neuron.current_gradient(g), held);
        const auto before = [&]() __attribute__((always_inline)) {
          return t > 0 ? neuron.after(charged[k - K]) : first_state(args, lanes, neuron, k);
        };
        if constexpr (Sink::kParameters) {
          const T* x = static_cast<const T*>(args.x) + t * N;
          if (sink.wants_parameters()) {
            sink.parameters(k, neuron.parameter_gradients(before(), input(t, k, lanes.load(x, k)), charged[k], ds_dh[j],
                                                          grad_s, states[k], g));
          }
        }
        states[k] = neuron.charge_adjoint(before, g);
      }
    }
  }
  if (args.grad_v_init) store_states(lanes, states, args.N, args.grad_v_init);
}

}  // namespace
}  // namespace TMKT_SIMD
}  // namespace tmkt
