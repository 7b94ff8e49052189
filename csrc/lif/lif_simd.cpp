// The loops over T for neurons begin..end, on vectors of the compiler. Compiled once per SIMD level.
#include "lif/lif_simd.h"

#include "common/vector_simd.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

constexpr int kTileVectors = kLifTile / kLanes;
// The rows of a tile lie a whole step apart, where no hardware prefetcher looks: each is asked for so many rows before
// its turn (CONTRIBUTING.md tells how the number was found).
constexpr int64_t kRowsAhead = 8;

// Walks the rows that a thread reads, tile after tile, kRowsAhead before their turn.
class Ahead {
 public:
  Ahead(int64_t rows, int64_t n, int64_t tile)
      : rows_(rows), tile_(tile), row_(kRowsAhead % rows), n_(n + kRowsAhead / rows * tile) {}
  int64_t row() const { return row_; }
  int64_t n() const { return n_; }
  void next() {
    if (++row_ < rows_) return;
    row_ = 0;
    n_ += tile_;
  }

 private:
  int64_t rows_, tile_, row_, n_;
};

template <int K, typename Access>
TMKT_INLINE void start(const LifArgs& args, Access access, int64_t n, Floats (&v)[K]) {
  for (int k = 0; k < K; ++k) {
    v[k] = args.v_init ? access.load(args.v_init + n + k * kLanes) : Floats{} + args.params.v_reset;
  }
}

// K vectors of neurons from n on, through all T steps.
template <typename T, Reset kReset, int K, typename Access>
TMKT_INLINE void forward_tile(const LifForwardArgs& args, Access access, Ahead& ahead, int64_t n) {
  const LifParams p = args.params;
  const T* x = static_cast<const T*>(args.x);
  T* spikes = static_cast<T*>(args.spikes);
  T* v_seq = static_cast<T*>(args.v_seq);
  Floats v[K];
  start(args, access, n, v);
  for (int64_t t = 0; t < args.T; ++t) {
    const int64_t at = t * args.N + n;
    const T* later = x + ahead.row() * args.N + ahead.n();
    for (int k = 0; k < K; ++k) {
      prefetch(later, k);
      const Floats h = lif_charge(p, v[k], access.load(x + at + k * kLanes));
      access.put(spike_bits<T>(lif_fires(p, h)), spikes + at + k * kLanes);
      if (v_seq) store(access, h, v_seq + at + k * kLanes);
      v[k] = lif_reset(p, kReset, h);
    }
    ahead.next();
  }
  for (int k = 0; k < K; ++k) store(access, v[k], args.v_last + n + k * kLanes);
}

template <typename T, Reset kReset, bool kDetach, bool kGradH, int K, typename Access>
TMKT_INLINE void backward_tile(const LifBackwardArgs& args, Access access, Ahead& ahead, Floats* history, int64_t n) {
  const LifParams p = args.params;
  const T* x = static_cast<const T*>(args.x);
  const T* grad_spikes = static_cast<const T*>(args.grad_spikes);
  const T* grad_v_seq = static_cast<const T*>(args.grad_v_seq);
  T* grad_x = static_cast<T*>(args.grad_x);
  const auto later = [&] {
    const int64_t row = ahead.row();
    if (row < args.T) return x + row * args.N + ahead.n();
    return grad_spikes + (2 * args.T - 1 - row) * args.N + ahead.n();
  };
  Floats state[K];  // v, going forward; its gradient, coming back
  start(args, access, n, state);
  for (int64_t t = 0; t < args.T; ++t) {
    const T* soon = later();
    for (int k = 0; k < K; ++k) {
      prefetch(soon, k);
      const Floats h = lif_charge(p, state[k], access.load(x + t * args.N + n + k * kLanes));
      history[t * K + k] = h;
      state[k] = lif_reset(p, kReset, h);
    }
    ahead.next();
  }
  for (int k = 0; k < K; ++k) state[k] = args.grad_v_last ? access.load(args.grad_v_last + n + k * kLanes) : Floats{};
  for (int64_t t = args.T - 1; t >= 0; --t) {
    const int64_t at = t * args.N + n;
    const Floats* h = history + t * K;
    Floats ds_dh[K];
    with_surrogate(args.surrogate, [&](auto surrogate) {
      for (int k = 0; k < K; ++k) ds_dh[k] = lif_ds_dh(p, surrogate, h[k]);
    });
    const T* soon = later();
    for (int k = 0; k < K; ++k) {
      if (grad_spikes) prefetch(soon, k);
      const Floats grad_s = grad_spikes ? access.load(grad_spikes + at + k * kLanes) : Floats{};
      const Floats grad_h = kGradH ? access.load(grad_v_seq + at + k * kLanes) : Floats{};
      const Floats g = lif_adjoint(p, kReset, kDetach, h[k], ds_dh[k], grad_s, state[k], grad_h);
      store(access, p.b * g, grad_x + at + k * kLanes);
      state[k] = p.a * g;
    }
    if (grad_spikes) ahead.next();
  }
  if (!args.grad_v_init) return;
  for (int k = 0; k < K; ++k) store(access, state[k], args.grad_v_init + n + k * kLanes);
}

// Calls tile(vectors, access, n): whole tiles, then single vectors, then what is left.
template <typename F>
TMKT_INLINE void for_each_tile(bool stream, int64_t begin, int64_t end, F tile) {
  int64_t n = begin;
  if (stream) {
    for (; n + kLifTile <= end; n += kLifTile) tile(IntTag<kTileVectors>{}, StreamedVector{}, n);
    StreamedVector::end();
  }
  for (; n + kLifTile <= end; n += kLifTile) tile(IntTag<kTileVectors>{}, WholeVector{}, n);
  for (; n + kLanes <= end; n += kLanes) tile(IntTag<1>{}, WholeVector{}, n);
  if (n < end) tile(IntTag<1>{}, PartOfVector{end - n}, n);
}

}  // namespace

void lif_forward(const LifForwardArgs& args, bool stream, int64_t begin, int64_t end) {
  Ahead ahead(args.T, begin, kLifTile);
  with_float(args.kind, [&](auto type) {
    with_value<Reset::kHard, Reset::kSoft>(args.reset, [&](auto reset) {
      for_each_tile(stream, begin, end, [&](auto vectors, auto access, int64_t n) {
        forward_tile<typename decltype(type)::type, decltype(reset)::value, decltype(vectors)::value>(args, access,
                                                                                                      ahead, n);
      });
    });
  });
}

void lif_backward(const LifBackwardArgs& args, bool stream, float* history, int64_t begin, int64_t end) {
  Ahead ahead(args.grad_spikes ? 2 * args.T : args.T, begin, kLifTile);
  auto* kept = reinterpret_cast<Floats*>(history);
  with_float(args.kind, [&](auto type) {
    with_value<Reset::kHard, Reset::kSoft>(args.reset, [&](auto reset) {
      with_value<true, false>(args.detach_reset, [&](auto detach) {
        with_value<true, false>(args.grad_v_seq != nullptr, [&](auto grad_h) {
          for_each_tile(stream, begin, end, [&](auto vectors, auto access, int64_t n) {
            backward_tile<typename decltype(type)::type, decltype(reset)::value, decltype(detach)::value,
                          decltype(grad_h)::value, decltype(vectors)::value>(args, access, ahead, kept, n);
          });
        });
      });
    });
  });
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
