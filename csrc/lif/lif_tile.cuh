// The lif kernels' loops over T, shared with bn_lif. A thread runs kWidth neurons through all T steps.
//
//   x [T, N]   t = 0   | n n n n | n n n n | ...      one 16-byte access a thread and step, coalesced over a warp;
//              t = 1   | n n n n | n n n n | ...      the rows of a thread do not depend on one another, so
//              ...         ^ one thread               kAhead of them are asked for before the first is used.
#pragma once

#include "common/cuda.h"
#include "lif/lif_args.h"

namespace tmkt {
namespace {

constexpr int kAhead = 4;  // rows that a thread asks for at once

// Backward holds h of this many steps in shared memory: registers would have to be indexed at compile time. Longer
// sequences go chunk by chunk.
constexpr int kChunk = 16;

// Neurons a thread takes: 16 bytes of x; in backward fewer of a half type, since many threads of 72 registers hide the
// memory's latency better than half as many of 100 (measured: benchmarks/results/tuning.md).
template <typename T>
constexpr int kFullWidth = 16 / sizeof(T);
constexpr int kBackwardWidth = 4;

// Where a thread's neurons lie in a step [N]: next to one another from n on. Another place may be given to the loops
// below.
template <int kNeurons>
struct Along {
  static constexpr int kWidth = kNeurons;
  template <typename T>
  using Row = Packed<T, kWidth>;
  int64_t n;

  // `first` is the address of the first neuron in a step: step + n.
  template <typename T>
  __device__ __forceinline__ Row<T> fetch(const T* first) const {
    return tmkt::fetch<kWidth>(first);
  }
  template <typename T>
  __device__ __forceinline__ void load(const T* step, float (&row)[kWidth]) const {
    tmkt::load(step + n, row);
  }
  template <typename T>
  __device__ __forceinline__ void store(const float (&row)[kWidth], T* first) const {
    tmkt::store(row, first);
  }
};

// A thread's rows of a [T, N] tensor, one after another: to move an address by a row takes two instructions, to make it
// from t a dozen.
template <typename T, typename Place>
struct Walk {
  const Place& place;
  T* first;
  int64_t by;

  // From step t on, by `by` values: forward N, backward -N.
  __device__ __forceinline__ Walk(const Place& place, T* tensor, int64_t N, int64_t t, int64_t by)
      : place(place), first(tensor + t * N + place.n), by(by) {}

  __device__ __forceinline__ auto fetch() {
    const auto row = place.fetch(first);
    first += by;
    return row;
  }
  __device__ __forceinline__ void store(const float (&row)[Place::kWidth]) {
    place.store(row, first);
    first += by;
  }
};

// The parameters of a thread's neurons: those of all neurons (kOwn = 0), which need no registers; one set from memory
// (kOwn = 1); or each neuron's own.
template <int kOwn>
struct Params {
  LifParams<float> params[kOwn];

  __device__ __forceinline__ Params(const LifArgs& args, int64_t n) {
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      params[j] = args.params;
      if (args.coefficients) {
        const float* p = args.coefficients + Division(Division(n + j, args.inner).quotient, args.channels).remainder;
        params[j] = {p[0], p[args.channels], p[2 * args.channels], p[3 * args.channels], p[4 * args.channels]};
      }
    }
  }
  __device__ __forceinline__ const LifParams<float>& operator[](int j) const { return params[kOwn > 1 ? j : 0]; }
};

template <>
struct Params<0> {
  const LifParams<float>& params;

  __device__ __forceinline__ Params(const LifArgs& args, int64_t) : params(args.params) {}
  __device__ __forceinline__ const LifParams<float>& operator[](int) const { return params; }
};

// Steps that backward keeps at a time.
TMKT_INLINE int64_t kept_steps(int64_t T) { return T < kChunk ? T : kChunk; }

// What a thread keeps of up to kChunk steps in dynamic shared memory: h, and x where it is wanted again. A thread reads
// what it wrote itself, so no barrier is needed; a warp's words lie side by side. A step is named by its address, which
// loops move along: addresses made from its number would take a fifth of backward's instructions.
template <typename T, int kWidth, bool kWithX>
class History {
  using H = Packed<float, kWidth>;
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
  // `at`: bytes from the first step, a multiple of kStepBytes.
  __device__ __forceinline__ void keep(int at, const float (&h)[kWidth], const X& x) const {
    put(h_ + at, pack<float>(h));
    if constexpr (kWithX) put(x_ + at, x);
  }
  __device__ __forceinline__ void recall_h(int at, float (&h)[kWidth]) const { unpack(get<H>(h_ + at), h); }
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

// The shared memory that backward takes.
template <typename T, int kWidth, bool kAgain>
size_t kept_bytes(int64_t steps) {
  return kept_steps(steps) * History<T, kWidth, kAgain>::kStepBytes;
}

template <typename Place, int kOwn>
__device__ __forceinline__ void start(const LifArgs& args, const Params<kOwn>& params, const Place& place,
                                      float (&v)[Place::kWidth]) {
  if (args.v_init) {
    place.load(args.v_init, v);
  } else {
#pragma unroll
    for (int j = 0; j < Place::kWidth; ++j) v[j] = params[j].v_reset;
  }
}

// What the neurons are charged with: x as it is.
struct PlainInput {
  __device__ __forceinline__ float operator()(int, float x) const { return x; }
};

// Where the spikes go to, step by step, and where their gradients come from, from the last step on: as they are.
template <typename T, typename Place>
struct StoreSpikes {
  Walk<T, Place> spikes;
  __device__ __forceinline__ StoreSpikes(const LifForwardArgs& args, const Place& place)
      : spikes(place, static_cast<T*>(args.spikes), args.N, 0, args.N) {}
  __device__ __forceinline__ void operator()(const float (&s)[Place::kWidth]) { spikes.store(s); }
};
template <typename T, typename Place>
struct LoadSpikeGradients {
  using Row = typename Place::template Row<T>;
  Walk<const T, Place> gradients;
  __device__ __forceinline__ LoadSpikeGradients(const LifBackwardArgs& args, const Place& place)
      : gradients(place, static_cast<const T*>(args.grad_spikes), args.N, args.T - 1, -args.N) {}
  __device__ __forceinline__ Row fetch() { return gradients.fetch(); }
  __device__ __forceinline__ void unpack(const Row& row, float (&grad_s)[Place::kWidth]) const {
    tmkt::unpack(row, grad_s);
  }
};

// Calls f with the reset as a type: one loop for each, without a test of it inside.
template <typename F>
__device__ __forceinline__ void with_reset(Reset reset, const F& f) {
  switch (static_cast<int>(reset)) {
    case static_cast<int>(Reset::kHard):
      return f(std::integral_constant<Reset, Reset::kHard>{});
    case static_cast<int>(Reset::kSoft):
      return f(std::integral_constant<Reset, Reset::kSoft>{});
    case static_cast<int>(Reset::kDelayedSubtract):
      return f(std::integral_constant<Reset, Reset::kDelayedSubtract>{});
    case static_cast<int>(Reset::kDelayedZero):
      return f(std::integral_constant<Reset, Reset::kDelayedZero>{});
    case static_cast<int>(Reset::kNone):
      return f(std::integral_constant<Reset, Reset::kNone>{});
  }
}

// What most networks are trained with has kernels of its own: these surrogates and resets, with a gradient for the
// spikes and none for v_seq. All else shares kernels that look at run time.
constexpr int kLookedUp = -1;

template <typename F>
void with_surrogate(const LifBackwardArgs& args, F f) {
  const bool common =
      args.grad_spikes && !args.grad_v_seq && args.reset != Reset::kDelayedZero && args.reset != Reset::kNone;
  if (common && args.surrogate.surrogate == Surrogate::kAtan) return f(IntTag<static_cast<int>(Surrogate::kAtan)>{});
  if (common && args.surrogate.surrogate == Surrogate::kSigmoid) {
    return f(IntTag<static_cast<int>(Surrogate::kSigmoid)>{});
  }
  f(IntTag<kLookedUp>{});
}

// Calls f(reset, detach) for backward's loop, both as types where the surrogate is one: a loop for each would otherwise
// hold every surrogate.
template <int kSurrogate, typename F>
__device__ __forceinline__ void with_adjoint(const LifBackwardArgs& args, const F& f) {
  using Hard = std::integral_constant<Reset, Reset::kHard>;
  using Soft = std::integral_constant<Reset, Reset::kSoft>;
  using Delayed = std::integral_constant<Reset, Reset::kDelayedSubtract>;
  if constexpr (kSurrogate == kLookedUp) {
    f(args.reset, args.detach_reset);
  } else if (args.reset == Reset::kHard) {
    args.detach_reset ? f(Hard{}, std::true_type{}) : f(Hard{}, std::false_type{});
  } else if (args.reset == Reset::kSoft) {
    args.detach_reset ? f(Soft{}, std::true_type{}) : f(Soft{}, std::false_type{});
  } else {
    f(Delayed{}, std::true_type{});
  }
}

// ds/dh of all values of a thread: one look at the surrogate, and their chains of arithmetic overlap.
template <int kSurrogate, int kValues>
__device__ __forceinline__ void surrogate_derivatives(const SurrogateShape& shape, const float (&u)[kValues],
                                                      float (&out)[kValues]) {
  const auto all = [&](auto surrogate) {
#pragma unroll
    for (int j = 0; j < kValues; ++j) {
      out[j] = surrogate_derivative(decltype(surrogate)::value, u[j], shape.alpha, shape.beta);
    }
  };
  if constexpr (kSurrogate != kLookedUp) {
    return all(std::integral_constant<Surrogate, static_cast<Surrogate>(kSurrogate)>{});
  }
  switch (static_cast<int>(shape.surrogate)) {
#define TMKT_CASE(name)                   \
  case static_cast<int>(Surrogate::name): \
    return all(std::integral_constant<Surrogate, Surrogate::name>{});
    TMKT_CASE(kAtan)
    TMKT_CASE(kSigmoid)
    TMKT_CASE(kTriangle)
    TMKT_CASE(kRectangle)
    TMKT_CASE(kExponential)
    TMKT_CASE(kSoftSign)
    TMKT_CASE(kSuperSpike)
    TMKT_CASE(kFastSigmoid)
    TMKT_CASE(kErf)
    TMKT_CASE(kLog)
    TMKT_CASE(kLeakyRectangle)
    TMKT_CASE(kFourier)
    TMKT_CASE(kS2nn)
    TMKT_CASE(kQPseudoSpike)
    TMKT_CASE(kLeakyRelu)
    TMKT_CASE(kInverse)
    TMKT_CASE(kLogTailedRelu)
    TMKT_CASE(kSpikeRateEscape)
    TMKT_CASE(kSparseFastSigmoid)
    TMKT_CASE(kTent)
    TMKT_CASE(kStraightThrough)
#undef TMKT_CASE
  }
}

// The neurons of `place` through all T steps; `input` makes their current from x, `sink(s)` takes the spikes of a
// step. `reset` is a type, from with_reset.
template <typename T, typename Place, int kOwn, typename Input, typename ResetOf, typename Sink>
__device__ __forceinline__ void forward_tile(const LifForwardArgs& args, ResetOf, const Params<kOwn>& params,
                                             const Input& input, const Place& place, Sink sink) {
  constexpr Reset kReset = ResetOf::value;
  constexpr int kWidth = Place::kWidth;
  Walk<const T, Place> x(place, static_cast<const T*>(args.x), args.N, 0, args.N);
  Walk<T, Place> v_seq(place, static_cast<T*>(args.v_seq), args.N, 0, args.N);
  float v[kWidth];
  start(args, params, place, v);
#pragma unroll 1
  for (int64_t begin = 0; begin < args.T; begin += kAhead) {
    typename Place::template Row<T> rows[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (begin + k < args.T) rows[k] = x.fetch();
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (begin + k >= args.T) break;
      float h[kWidth], s[kWidth];
      unpack(rows[k], h);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        h[j] = lif_charge(params[j], kReset, v[j], input(j, h[j]));
        s[j] = lif_fires(params[j], kReset, h[j]) ? 1.0f : 0.0f;
        v[j] = lif_reset(params[j], kReset, h[j]);
      }
      sink(s);
      if (args.v_seq) v_seq.store(h);
    }
  }
  place.store(v, args.v_last + place.n);
}

// Advances v through the next `steps` rows of x; `keep(k, h, row)` gets h of each, and its row of x. `reset` is a type
// or a value.
template <typename T, typename Place, int kOwn, typename Input, typename ResetOf, typename Keep>
__device__ __forceinline__ void charge(const Params<kOwn>& params, const Input& input, ResetOf reset,
                                       Walk<const T, Place> x, int steps, float (&v)[Place::kWidth], const Keep& keep) {
  const auto group = [&](auto full, int begin) {
    typename Place::template Row<T> rows[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (full || begin + k < steps) rows[k] = x.fetch();
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (!full && begin + k >= steps) break;
      float h[Place::kWidth];
      unpack(rows[k], h);
#pragma unroll
      for (int j = 0; j < Place::kWidth; ++j) {
        h[j] = lif_charge(params[j], reset, v[j], input(j, h[j]));
        v[j] = lif_reset(params[j], reset, h[j]);
      }
      keep(begin + k, h, rows[k]);
    }
  };
  int begin = 0;
#pragma unroll 1
  for (; begin + kAhead <= steps; begin += kAhead) group(std::true_type{}, begin);
  if (begin < steps) group(std::false_type{}, begin);
}

// Steps of gradients that backward holds while as many more are on their way.
template <int kOwn, bool kSums, int kSurrogate>
constexpr int kRowsOf = kSurrogate == kLookedUp || (kSums && kOwn > 1) ? 1 : 2;

// The adjoint of forward_tile. From the last step on, `gradients` gives the gradients of the spikes, and
// `sink(params, x, g)` takes the gradients g of h, with their x if Sink::kTakesX; those of the currents are b g. x goes
// through memory once for T <= kChunk. For longer T a first sweep writes v at the start of each chunk to `starts`
// [chunks, N], and the chunks are then recomputed from the last to the first; each thread reads only what it wrote.
// kSums: the gradients of the parameters are wanted, and added up in `sums`. kSurrogate: its number, or kLookedUp.
// `reset` and `detach` are from with_adjoint.
template <typename T, bool kSums, int kSurrogate, typename Place, int kOwn, typename Input, typename Gradients,
          typename Sink, typename ResetOf, typename DetachOf>
__device__ __forceinline__ void backward_tile(const LifBackwardArgs& args, ResetOf reset, DetachOf detach,
                                              const Params<kOwn>& params, const Input& input, const Place& place,
                                              Gradients gradients, Sink& sink, float* starts,
                                              LifParams<float> (&sums)[kSums ? Place::kWidth : 1]) {
  constexpr bool kAgain = kSums || Sink::kTakesX, kCommon = kSurrogate != kLookedUp;
  constexpr int kWidth = Place::kWidth, kRows = kRowsOf<kOwn, kSums, kSurrogate>;
  using XRow = typename Place::template Row<T>;
  using Kept = History<T, kWidth, kAgain>;
  // Row i belongs to the i-th step from the end.
  struct Rows {
    typename Gradients::Row gradient[kRows];
  };
  const int64_t N = args.N, last = (args.T - 1) / kChunk;
  const T* x = static_cast<const T*>(args.x);
  const Kept history;
  const bool grad_v_seq = !kCommon && args.grad_v_seq, grad_spikes = kCommon || args.grad_spikes;
  const auto rows_from = [&](int64_t chunk) { return Walk<const T, Place>(place, x, N, chunk * kChunk, N); };
  // The rows of the steps before `end`.
  const auto ask = [&](int end) {
    Rows rows = {};
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (grad_spikes && end > i) rows.gradient[i] = gradients.fetch();
    }
    return rows;
  };
  float v[kWidth], first[kWidth], grad_v[kWidth] = {};
  // Through the `count` steps before `end`: kRows, or what is left of a chunk.
  const auto go_back = [&](auto count, int64_t chunk, int end, const Rows& rows) {
    constexpr int kCount = count;
    float h[kCount + 1][kWidth], u[kCount * kWidth], ds_dh[kCount * kWidth];
#pragma unroll
    for (int i = 0; i < kCount; ++i) history.recall_h((end - 1 - i) * Kept::kStepBytes, h[i]);
    if (end > kCount) history.recall_h((end - 1 - kCount) * Kept::kStepBytes, h[kCount]);
#pragma unroll
    for (int i = 0; i < kCount * kWidth; ++i) u[i] = h[i / kWidth][i % kWidth] - params[i % kWidth].v_threshold;
    surrogate_derivatives<kSurrogate>(args.surrogate, u, ds_dh);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int k = end - 1 - i;
      float grad_s[kWidth], x_row[kWidth], g[kWidth], v_before[kWidth];
      gradients.unpack(rows.gradient[i], grad_s);
      history.recall_x(k * Kept::kStepBytes, x_row);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        v_before[j] = i + 1 < kCount || k > 0 ? lif_reset(params[j], reset, h[i + 1][j]) : first[j];
        g[j] = lif_adjoint(params[j], reset, detach, h[i][j], ds_dh[i * kWidth + j], grad_s[j], grad_v[j]);
      }
      if (grad_v_seq) {
        float grad_h[kWidth];
        place.load(static_cast<const T*>(args.grad_v_seq) + (chunk * kChunk + k) * N, grad_h);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) g[j] += grad_h[j];
      }
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if constexpr (kSums) {
          add(sums[j], lif_parameter_gradients(params[j], reset, detach, v_before[j], input(j, x_row[j]), h[i][j],
                                               ds_dh[i * kWidth + j], grad_s[j], grad_v[j], g[j]));
        }
        grad_v[j] = lif_charge_adjoint(params[j], reset, v_before[j], g[j]);
      }
      sink(params, x_row, g);
    }
  };
  start(args, params, place, v);
  for (int64_t chunk = 0; chunk < last; ++chunk) {
    place.store(v, starts + chunk * N + place.n);
    charge(params, input, reset, rows_from(chunk), kChunk, v, [](int, const float (&)[kWidth], const XRow&) {});
  }
  if (args.grad_v_last) place.load(args.grad_v_last, grad_v);
  for (int64_t chunk = last; chunk >= 0; --chunk) {
    const int steps = chunk < last ? kChunk : static_cast<int>(args.T - last * kChunk);
    Rows rows = ask(steps);
    if (chunk < last) place.load(starts + chunk * N, v);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) first[j] = v[j];
    charge(params, input, reset, rows_from(chunk), steps, v, [&](int k, const float (&h)[kWidth], const XRow& row) {
      history.keep(k * Kept::kStepBytes, h, bit_cast<Packed<T, kWidth>>(row));
    });
    int end = steps;
#pragma unroll 1
    for (; end >= kRows; end -= kRows) {
      const Rows next = ask(end - kRows);
      go_back(IntTag<kRows>{}, chunk, end, rows);
      rows = next;
    }
    if constexpr (kRows > 1) {
      static_assert(kRows == 2, "one step may be left");
      if (end > 0) go_back(IntTag<1>{}, chunk, end, rows);
    }
  }
  if (args.grad_v_init) place.store(grad_v, args.grad_v_init + place.n);
}

}  // namespace
}  // namespace tmkt
