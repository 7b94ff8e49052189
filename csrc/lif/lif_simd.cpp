// The loops over T for neurons begin..end. Compiled once per SIMD level; the compiler vectorises over the tile.
#include "lif/lif_simd.h"

#include <type_traits>

#include "common/convert_simd.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

constexpr int64_t kTile = kLifTile;

// Spikes are written as bits, 0 or those of 1.0, which vectorises for every type.
template <typename T>
struct SpikeBits;
template <>
struct SpikeBits<float> {
  using type = uint32_t;
  static constexpr type kOne = 0x3f800000;
};
template <>
struct SpikeBits<BFloat16> {
  using type = uint16_t;
  static constexpr type kOne = 0x3f80;
};
template <>
struct SpikeBits<Float16> {
  using type = uint16_t;
  static constexpr type kOne = 0x3c00;
};

// Row `t` of a [T, N] array as floats: the memory itself where it holds floats, else converted into `buffer`.
template <typename T>
TMKT_INLINE const float* as_floats(const T* row, float* buffer, int64_t width) {
  if constexpr (std::is_same_v<T, float>) {
    return row;
  } else {
    load_row(row, buffer, width);
    return buffer;
  }
}

// Asks for a row that is read soon: the rows of a tile lie a whole step apart, where no hardware prefetcher looks.
// Asking for what lies beyond the array is harmless.
template <typename T>
TMKT_INLINE void prefetch_row(const T* row, int64_t width) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t j = 0; j < width; j += kLine) __builtin_prefetch(row + j);
}

TMKT_INLINE void start(const LifArgs& args, int64_t n, int64_t width, float* v) {
  for (int64_t j = 0; j < width; ++j) v[j] = args.v_init ? args.v_init[n + j] : args.params.v_reset;
}

// Scalars are passed by value and pointers are restrict: anything less, and the loop stays scalar.
template <typename T, Reset kReset>
TMKT_INLINE void forward_row(const LifParams p, const float* __restrict x, float* __restrict v,
                             typename SpikeBits<T>::type* __restrict s, float* __restrict h_out, int64_t width) {
  for (int64_t j = 0; j < width; ++j) {
    const float h = lif_charge(p, v[j], x[j]);
    s[j] = lif_fires(p, h) ? SpikeBits<T>::kOne : 0;
    v[j] = lif_reset(p, kReset, h);
    if (h_out) h_out[j] = h;
  }
}

template <typename T, Reset kReset>
TMKT_INLINE void forward_tile(const LifForwardArgs& args, bool stream, int64_t n, int64_t width) {
  const LifParams p = args.params;
  float v[kTile], x_buffer[kTile], h_buffer[kTile];
  alignas(64) typename SpikeBits<T>::type s_buffer[kTile];
  start(args, n, width, v);
  for (int64_t t = 0; t < args.T; ++t) {
    const int64_t at = t * args.N + n;
    prefetch_row(static_cast<const T*>(args.x) + (t + 1 < args.T ? at + args.N : n + width), width);
    const float* x = as_floats(static_cast<const T*>(args.x) + at, x_buffer, width);
    auto* s = static_cast<typename SpikeBits<T>::type*>(args.spikes) + at;
    auto* s_row = stream ? s_buffer : s;
    if (args.v_seq) {
      forward_row<T, kReset>(p, x, v, s_row, h_buffer, width);
      store_row(h_buffer, static_cast<T*>(args.v_seq) + at, width);
    } else {
      forward_row<T, kReset>(p, x, v, s_row, nullptr, width);
    }
    if (stream) stream_row(s_buffer, s, width);
  }
  for (int64_t j = 0; j < width; ++j) args.v_last[n + j] = v[j];
}

// h[t] from h[t - 1]: v is not kept.
template <Reset kReset>
TMKT_INLINE void charge_row(const LifParams p, const float* __restrict before, const float* __restrict x,
                            float* __restrict h, int64_t width) {
  for (int64_t j = 0; j < width; ++j) h[j] = lif_charge(p, lif_reset(p, kReset, before[j]), x[j]);
}

template <Reset kReset, Surrogate kSurrogate, bool kDetach, bool kGradH>
TMKT_INLINE void backward_row(const LifParams p, const float* __restrict h, const float* __restrict grad_s,
                              const float* __restrict grad_h, float* __restrict grad_v, float* __restrict grad_x,
                              int64_t width) {
  for (int64_t j = 0; j < width; ++j) {
    const float g = lif_adjoint<kSurrogate>(p, kReset, kDetach, h[j], grad_s[j], grad_v[j], kGradH ? grad_h[j] : 0.0f);
    grad_x[j] = p.b * g;
    grad_v[j] = p.a * g;
  }
}

// h of every step of a tile, recomputed from x into `history` [T, kTile].
template <typename T, Reset kReset>
TMKT_INLINE void recompute_tile(const LifBackwardArgs& args, float* history, int64_t n, int64_t width) {
  const LifParams p = args.params;
  float v[kTile], buffer[kTile];
  start(args, n, width, v);
  const float* x = as_floats(static_cast<const T*>(args.x) + n, buffer, width);
  for (int64_t j = 0; j < width; ++j) history[j] = lif_charge(p, v[j], x[j]);
  for (int64_t t = 1; t < args.T; ++t) {
    x = as_floats(static_cast<const T*>(args.x) + t * args.N + n, buffer, width);
    if (args.grad_spikes) prefetch_row(static_cast<const T*>(args.grad_spikes) + t * args.N + n, width);
    charge_row<kReset>(p, history + (t - 1) * kTile, x, history + t * kTile, width);
  }
}

template <typename T, Reset kReset, Surrogate kSurrogate, bool kDetach, bool kGradH>
TMKT_INLINE void backward_tile(const LifBackwardArgs& args, bool stream, float* history, int64_t n, int64_t width) {
  recompute_tile<T, kReset>(args, history, n, width);
  float grad_v[kTile], s_buffer[kTile], h_buffer[kTile];
  alignas(64) float x_buffer[kTile];
  static const float zeros[kTile] = {};
  for (int64_t j = 0; j < width; ++j) grad_v[j] = args.grad_v_last ? args.grad_v_last[n + j] : 0.0f;
  for (int64_t t = args.T - 1; t >= 0; --t) {
    const int64_t at = t * args.N + n;
    const T* grad_spikes = static_cast<const T*>(args.grad_spikes);
    const float* grad_s = grad_spikes ? as_floats(grad_spikes + at, s_buffer, width) : zeros;
    const float* grad_h = kGradH ? as_floats(static_cast<const T*>(args.grad_v_seq) + at, h_buffer, width) : nullptr;
    prefetch_row(static_cast<const T*>(args.x) + at + width, width);  // of the next tile
    T* grad_x = static_cast<T*>(args.grad_x) + at;
    float* row = x_buffer;
    if constexpr (std::is_same_v<T, float>) row = stream ? x_buffer : grad_x;
    backward_row<kReset, kSurrogate, kDetach, kGradH>(args.params, history + t * kTile, grad_s, grad_h, grad_v, row,
                                                      width);
    if constexpr (std::is_same_v<T, float>) {
      if (stream) stream_row(x_buffer, grad_x, width);
    } else {
      store_row(x_buffer, grad_x, width);
    }
  }
  for (int64_t j = 0; j < width; ++j) args.grad_v_init[n + j] = grad_v[j];
}

// Whole tiles get a width known at compile time, so that their loops are unrolled into registers.
template <typename T, Reset kReset>
void forward(const LifForwardArgs& args, bool stream, int64_t begin, int64_t end) {
  int64_t n = begin;
  for (; n + kTile <= end; n += kTile) forward_tile<T, kReset>(args, stream, n, kTile);
  if (n < end) forward_tile<T, kReset>(args, stream, n, end - n);
  if (stream) end_stream();
}

template <typename T, Reset kReset, Surrogate kSurrogate, bool kDetach, bool kGradH>
void backward(const LifBackwardArgs& args, bool stream, float* history, int64_t begin, int64_t end) {
  int64_t n = begin;
  for (; n + kTile <= end; n += kTile) {
    backward_tile<T, kReset, kSurrogate, kDetach, kGradH>(args, stream, history, n, kTile);
  }
  if (n < end) backward_tile<T, kReset, kSurrogate, kDetach, kGradH>(args, stream, history, n, end - n);
  if (stream) end_stream();
}

}  // namespace

void lif_forward(const LifForwardArgs& args, bool stream, int64_t begin, int64_t end) {
  with_float(args.kind, [&](auto type) {
    with_value<Reset::kHard, Reset::kSoft>(args.reset, [&](auto reset) {
      forward<typename decltype(type)::type, decltype(reset)::value>(args, stream, begin, end);
    });
  });
}

void lif_backward(const LifBackwardArgs& args, bool stream, float* history, int64_t begin, int64_t end) {
  with_float(args.kind, [&](auto type) {
    with_value<Reset::kHard, Reset::kSoft>(args.reset, [&](auto reset) {
      with_value<Surrogate::kAtan, Surrogate::kSigmoid, Surrogate::kTriangle, Surrogate::kRectangle>(
          args.surrogate, [&](auto surrogate) {
            with_value<true, false>(args.detach_reset, [&](auto detach) {
              with_value<true, false>(args.grad_v_seq != nullptr, [&](auto grad_h) {
                backward<typename decltype(type)::type, decltype(reset)::value, decltype(surrogate)::value,
                         decltype(detach)::value, decltype(grad_h)::value>(args, stream, history, begin, end);
              });
            });
          });
    });
  });
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
