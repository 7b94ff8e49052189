// The loops over T that the lif and bn_lif kernels share, for *_simd.cpp files.
#pragma once

#include <algorithm>

#include "common/surrogate_simd.h"
#include "lif/lif_simd.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

constexpr int kTileVectors = kLifTile / kLanes;
// The rows of a tile lie a whole step apart, where no hardware prefetcher looks: each is asked for so many rows before
// its turn (benchmarks/results/tuning.md has the trials).
constexpr int64_t kRowsAhead = 8;

// Walks the rows that a thread reads, tile after tile, kRowsAhead before their turn.
class Ahead {
 public:
  Ahead(int64_t rows, int64_t n, int64_t tile)
      : rows_(rows), row_(kRowsAhead % rows), n_(n + kRowsAhead / rows * tile) {}
  int64_t row() const { return row_; }
  int64_t n() const { return n_; }
  void next(int64_t tile) {
    if (++row_ < rows_) return;
    row_ = 0;
    n_ += tile;
  }

 private:
  int64_t rows_, row_, n_;
};

// The values that neurons n.. of a step have from their channels, neuron n from channel n / inner % channels.
inline void spread_channels(const float* values, int64_t channels, int64_t inner, int64_t n, int64_t count,
                            float* row) {
  for (int64_t j = 0; j < count;) {  // a run of neurons at a time, of one channel or of neighbouring ones
    const int64_t channel = (n + j) / inner % channels;
    const int64_t room = inner > 1 ? inner - (n + j) % inner : channels - channel;
    const int64_t run = room < count - j ? room : count - j;
    if (inner > 1) {
      for (int64_t k = 0; k < run; ++k) row[j + k] = values[channel];
    } else {
      memcpy(row + j, values + channel, run * sizeof(float));
    }
    j += run;
  }
}

// The parameters of K vectors of neurons: shared by all, or each neuron's own.
struct SharedParams {
  using Params = LifParams<float>;
  Params params;
  const Params& operator[](int) const { return params; }
};

template <int K>
struct OwnParams {
  using Params = LifParams<Floats>;
  Params params[K];
  const Params& operator[](int k) const { return params[k]; }

  // Neurons n.. of a step; the last vector may be filled in part.
  OwnParams(const LifArgs& args, int64_t n, int64_t count) {
    float rows[kLifParams][K * kLanes] = {};
    for (int i = 0; i < kLifParams; ++i) {
      spread_channels(args.coefficients + i * args.channels, args.channels, args.inner, n, count, rows[i]);
    }
    for (int k = 0; k < K; ++k) {
      const auto at = [&](int i) { return TMKT_SIMD::load(rows[i] + k * kLanes); };
      params[k] = LifParams<Floats>{at(0), at(1), at(2), at(3), at(4)};
    }
  }
};

SharedParams shared_params(const LifArgs& args) {
  if (!args.coefficients) return {args.params};
  const float* p = args.coefficients;  // of the one channel
  return {{p[0], p[1], p[2], p[3], p[4]}};
}

// v before the first step, of vector k of the neurons from n on.
template <typename Access, typename Params>
TMKT_INLINE Floats start(const LifArgs& args, Access access, const Params& params, int64_t n, int k) {
  return args.v_init ? access.load(args.v_init + n + k * kLanes) : Floats{} + params[k].v_reset;
}

// What the neurons are charged with: x as it is.
struct PlainInput {
  TMKT_INLINE Floats operator()(int, Floats x) const { return x; }
};

// K vectors of neurons from n on, through all T steps; `input` makes their current from x.
template <typename T, int K, typename R, typename Access, typename Params, typename Input>
TMKT_INLINE void forward_tile(const LifForwardArgs& args, R reset, Access access, const Params& params,
                              const Input& input, Ahead& ahead, int64_t n) {
  const T* x = static_cast<const T*>(args.x);
  T* spikes = static_cast<T*>(args.spikes);
  T* v_seq = static_cast<T*>(args.v_seq);
  Floats v[K];
  for (int k = 0; k < K; ++k) v[k] = start(args, access, params, n, k);
  for (int64_t t = 0; t < args.T; ++t) {
    const int64_t at = t * args.N + n;
    const T* later = x + ahead.row() * args.N + ahead.n();
    for (int k = 0; k < K; ++k) {
      prefetch(later, k);
      const Floats h = lif_charge(params[k], reset, v[k], input(k, access.load(x + at + k * kLanes)));
      access.put(spike_bits<T>(lif_fires(params[k], reset, h)), spikes + at + k * kLanes);
      if (v_seq) store(access, h, v_seq + at + k * kLanes);
      v[k] = lif_reset(params[k], reset, h);
    }
    ahead.next(K * kLanes);
  }
  for (int k = 0; k < K; ++k) store(access, v[k], args.v_last + n + k * kLanes);
}

// What a backward loop is compiled for. Plain: as in most training, of all output gradients only that of the spikes is
// there, the reset is detached, and no parameter has a gradient; what else may be asked for costs branches in the
// innermost loop. With the default surrogate, its derivative needs no way through memory.
enum class Asked { kAnything, kPlain, kPlainAtan };

inline bool is_plain(const LifBackwardArgs& args) {
  return args.detach_reset && args.grad_spikes && !args.grad_v_seq && !args.grad_coefficients && args.channels <= 1;
}

// Of so many vectors derivatives are computed at a time: their divisions overlap with the rest, and those that go
// through memory are worth a call.
template <int K, Asked kAsked>
constexpr int kDerivatives = std::min(K, kAsked == Asked::kPlainAtan ? 4 : 8);

// The adjoint of forward_tile; `sink(k, at, gradient)` takes the gradient of the current of vector k, whose x is at
// `at`.
template <typename T, Asked kAsked, int K, typename R, typename Access, typename Params, typename Input, typename Sink>
TMKT_INLINE void backward_tile(const LifBackwardArgs& args, R reset, Access access, const Params& params,
                               const Input& input, const Sink& sink, Ahead& ahead, Floats* history, int64_t n) {
  constexpr int kBlock = kDerivatives<K, kAsked>;
  static_assert(K % kBlock == 0);
  constexpr bool kPlain = kAsked != Asked::kAnything;
  const bool detach = kPlain || args.detach_reset;
  const Derivatives<kAsked == Asked::kPlainAtan> derivatives(args.surrogate);
  const T* x = static_cast<const T*>(args.x);
  const T* grad_spikes = static_cast<const T*>(args.grad_spikes);
  const T* grad_v_seq = kPlain ? nullptr : static_cast<const T*>(args.grad_v_seq);
  float* grad_coefficients = kPlain ? nullptr : args.grad_coefficients;
  const bool with_spikes = kPlain || grad_spikes;
  const auto later = [&] {
    const int64_t row = ahead.row();
    if (row < args.T) return x + row * args.N + ahead.n();
    return grad_spikes + (2 * args.T - 1 - row) * args.N + ahead.n();
  };
  Floats state[K];  // v, going forward; its gradient, coming back
  for (int k = 0; k < K; ++k) state[k] = start(args, access, params, n, k);
  for (int64_t t = 0; t < args.T; ++t) {
    const T* soon = later();
    for (int k = 0; k < K; ++k) {
      prefetch(soon, k);
      const Floats current = input(k, access.load(x + t * args.N + n + k * kLanes));
      const Floats h = lif_charge(params[k], reset, state[k], current);
      history[t * K + k] = h;
      state[k] = lif_reset(params[k], reset, h);
    }
    ahead.next(K * kLanes);
  }
  LifParams<Floats> sums[kPlain ? 1 : K];
  if (grad_coefficients) {
    for (int k = 0; k < K; ++k) sums[k] = LifParams<Floats>{};
  }
  for (int k = 0; k < K; ++k) state[k] = args.grad_v_last ? access.load(args.grad_v_last + n + k * kLanes) : Floats{};
  for (int64_t t = args.T - 1; t >= 0; --t) {
    const int64_t at = t * args.N + n;
    const Floats* h = history + t * K;
    const T* soon = later();
    for (int block = 0; block < K; block += kBlock) {
      Floats ds_dh[kBlock];
      for (int j = 0; j < kBlock; ++j) ds_dh[j] = h[block + j] - params[block + j].v_threshold;
      derivatives(ds_dh, kBlock);
      for (int j = 0; j < kBlock; ++j) {
        const int k = block + j;
        if (with_spikes) prefetch(soon, k);
        const Floats grad_s = with_spikes ? access.load(grad_spikes + at + k * kLanes) : Floats{};
        const Floats grad_h = grad_v_seq ? access.load(grad_v_seq + at + k * kLanes) : Floats{};
        const Floats g = lif_adjoint(params[k], reset, detach, h[k], ds_dh[j], grad_s, state[k]) + grad_h;
        sink(k, at + k * kLanes, params[k].b * g);
        const auto before = [&] {
          return t > 0 ? lif_reset(params[k], reset, h[k - K]) : start(args, access, params, n, k);
        };
        if (grad_coefficients) {
          const Floats again = input(k, access.load(x + at + k * kLanes));
          add(sums[k],
              lif_parameter_gradients(params[k], reset, detach, before(), again, h[k], ds_dh[j], grad_s, state[k], g));
        }
        if (reset == Reset::kDelayedZero) {
          state[k] = lif_charge_adjoint(params[k], reset, before(), g);
        } else {
          state[k] = lif_charge_adjoint(params[k], reset, g, g);
        }
      }
    }
    if (with_spikes) ahead.next(K * kLanes);
  }
  if (args.grad_v_init) {
    for (int k = 0; k < K; ++k) store(access, state[k], args.grad_v_init + n + k * kLanes);
  }
  if (grad_coefficients) {
    for (int k = 0; k < K; ++k) {
      const Floats rows[kLifParams] = {sums[k].a, sums[k].b, sums[k].c, sums[k].v_threshold, sums[k].v_reset};
      for (int i = 0; i < kLifParams; ++i) store(access, rows[i], grad_coefficients + i * args.N + n + k * kLanes);
    }
  }
}

// Calls tile(vectors, access, n): whole tiles, then single vectors, of which the last may be filled in part.
template <int K = kTileVectors, typename F>
TMKT_INLINE void for_each_tile(bool stream, int64_t begin, int64_t end, F tile) {
  constexpr int64_t kWidth = K * kLanes;
  int64_t n = begin;
  if (stream) {
    for (; n + kWidth <= end; n += kWidth) tile(IntTag<K>{}, StreamedVector{}, n);
    StreamedVector::end();
  }
  for (; n + kWidth <= end; n += kWidth) tile(IntTag<K>{}, WholeVector{}, n);
  for (; n < end; n += kLanes) tile(IntTag<1>{}, PartOfVector{std::min<int64_t>(kLanes, end - n)}, n);
}

template <auto kValue>
using Constant = std::integral_constant<decltype(kValue), kValue>;

// Each copy of the loops takes seconds to compile. Rare cases share one copy, which tests the reset and the requested
// gradients at run time. x86 processors without AVX2 are rare too, so they have that copy alone.
#if defined(__x86_64__) && !defined(__AVX2__)
constexpr bool kOneCopy = true;
#else
constexpr bool kOneCopy = false;
#endif

// Calls f(reset).
template <typename F>
TMKT_INLINE void with_reset(Reset reset, F f) {
  if constexpr (!kOneCopy) {
    if (reset == Reset::kHard) return f(Constant<Reset::kHard>{});
    if (reset == Reset::kSoft) return f(Constant<Reset::kSoft>{});
    if (reset == Reset::kDelayedSubtract) return f(Constant<Reset::kDelayedSubtract>{});  // snnTorch's default
  }
  f(reset);
}

// Calls f(reset, asked), for values of type T.
template <typename T, typename F>
TMKT_INLINE void with_backward_variant(const LifBackwardArgs& args, F f) {
  if constexpr (!kOneCopy) {
    const Constant<Reset::kHard> hard;
    const Constant<Reset::kSoft> soft;
    const Constant<Reset::kDelayedSubtract> delayed;
    const bool plain = is_plain(args);
    if constexpr (!std::is_same_v<T, Float16>) {
      if (plain && args.surrogate.surrogate == Surrogate::kAtan) {
        if (args.reset == hard) return f(hard, Constant<Asked::kPlainAtan>{});
        if (args.reset == soft) return f(soft, Constant<Asked::kPlainAtan>{});
        if (args.reset == delayed) return f(delayed, Constant<Asked::kPlainAtan>{});
      }
      if (!plain && args.reset == hard) return f(hard, Constant<Asked::kAnything>{});  // SpikingJelly's default
    }
    if (plain && args.reset == hard) return f(hard, Constant<Asked::kPlain>{});
    if (plain && args.reset == soft) return f(soft, Constant<Asked::kPlain>{});
  }
  f(args.reset, Constant<Asked::kAnything>{});
}

}  // namespace
}  // namespace TMKT_SIMD
}  // namespace tmkt
