// lif over neurons begin..end. Compiled once per SIMD level.
#include "lif/lif_simd.h"

#include "lif/lif_tile_simd.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

// Calls f(params) with the parameters of a tile.
template <int K, typename Access, typename F>
TMKT_INLINE void with_params(const LifArgs& args, Access access, int64_t n, F f) {
  if (args.channels > 1) {
    f(OwnParams<K>(args, n, (K - 1) * kLanes + access.width));
  } else {
    f(shared_params(args));
  }
}

}  // namespace

void lif_forward(const LifForwardArgs& args, bool stream, int64_t begin, int64_t end) {
  Ahead ahead(args.T, begin, kLifTile);
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    with_reset(args.reset, [&](auto reset) {
      for_each_tile(stream, begin, end, [&](auto vectors, auto access, int64_t n) __attribute__((always_inline)) {
        constexpr int K = decltype(vectors)::value;
        with_params<K>(args, access, n, [&](const auto& params) __attribute__((always_inline)) {
          forward_tile<T, K>(args, reset, access, params, PlainInput{}, ahead, n);
        });
      });
    });
  });
}

void lif_backward(const LifBackwardArgs& args, bool stream, float* history, int64_t begin, int64_t end) {
  Ahead ahead(args.grad_spikes ? 2 * args.T : args.T, begin, kLifTile);
  auto* kept = reinterpret_cast<Floats*>(history);
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    T* grad_x = static_cast<T*>(args.grad_x);
    with_backward_variant<T>(args, [&](auto reset, auto asked) {
      for_each_tile(stream, begin, end, [&](auto vectors, auto access, int64_t n) __attribute__((always_inline)) {
        constexpr int K = decltype(vectors)::value;
        const auto sink = [=](int, int64_t at, Floats grad) { store(access, grad, grad_x + at); };
        const auto run = [&](const auto& params) __attribute__((always_inline)) {
          backward_tile<T, asked(), K>(args, reset, access, params, PlainInput{}, sink, ahead, kept, n);
        };
        if constexpr (asked() == Asked::kAnything) {
          with_params<K>(args, access, n, run);
        } else {
          run(shared_params(args));
        }
      });
    });
  });
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
