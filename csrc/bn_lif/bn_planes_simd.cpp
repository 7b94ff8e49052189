// bn_lif plane by plane: what a channel has is a scalar, then. Compiled once per SIMD level.
#include "bn_lif/bn_planes_simd.h"

#include "common/cpu.h"
#include "lif/lif_tile_simd.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

struct Normalise {
  float mean, scale, bias;
  TMKT_INLINE Floats operator()(Floats x) const { return (x - mean) * scale + bias; }
};

Normalise channel_of(const BnArgs& bn, int64_t plane) {
  const int64_t c = plane % bn.channels;
  return {bn.mean[c], bn.scale[c], bn.bias[c]};
}

// How the vectors of a tile lie in its rows. `held` is what of a row is stored with the next vector.
template <typename Access>
struct InOrder {
  Access access;

  template <typename T>
  TMKT_INLINE Floats load(const T* row, int k) const {
    return access.load(row + k * kLanes);
  }
  template <typename T>
  TMKT_INLINE void store(Floats x, T* row, int k, Words& /*held*/) const {
    TMKT_SIMD::store(access, x, row + k * kLanes);
  }
  template <typename T>
  TMKT_INLINE void put_spikes(Ints fired, T* row, int k, Words& /*held*/) const {
    access.put(spike_bits<T>(fired), row + k * kLanes);
  }
};

// bfloat16 two vectors at a time, the even and the odd values of a line: a shift and a mask make them floats and one
// store takes both back, where widening and narrowing a vector at a time are slower than all arithmetic here. Neurons
// do not care for their order, if all arrays have the same.
template <typename Access>
struct InPairs {
  Access access;

  TMKT_INLINE Floats load(const BFloat16* row, int k) const {
    const Words line = read<Words>(row + k / 2 * 2 * kLanes);
    return (Floats)(k % 2 == 0 ? line << 16 : line & kUpper);
  }
  TMKT_INLINE void store(Floats x, BFloat16* row, int k, Words& held) const { put(round_to_bfloat16(x), row, k, held); }
  TMKT_INLINE void put_spikes(Ints fired, BFloat16* row, int k, Words& held) const {
    put(spike_bits<float>(fired), row, k, held);
  }
  // Once for all T steps: lane by lane will do.
  TMKT_INLINE Floats load(const float* row, int k) const {
    Floats x{};
    for (int j = 0; j < kLanes; ++j) x[j] = row[k / 2 * 2 * kLanes + 2 * j + k % 2];
    return x;
  }
  TMKT_INLINE void store(Floats x, float* row, int k, Words& held) const {
    if (k % 2 == 0) {
      held = (Words)x;
      return;
    }
    const Floats even = (Floats)held;
    Floats lower, upper;
    interleave(even, x, lower, upper);
    access.put((Words)lower, row + (k - 1) * kLanes);
    access.put((Words)upper, row + k * kLanes);
  }

 private:
  static constexpr uint32_t kUpper = 0xffff0000u;

  // Bits whose upper halves are the values.
  TMKT_INLINE void put(Words bits, BFloat16* row, int k, Words& held) const {
    if (k % 2 == 0) {
      held = bits >> 16;
    } else {
      access.put(held | (bits & kUpper), row + (k - 1) * kLanes);
    }
  }
};

// Calls tile(vectors, lanes, i): whole tiles of a plane, quarters of one, then vectors, of which the last may be filled
// in part. Tiles are inlined by force: left to GCC, what they capture goes through memory, a third of the time.
template <bool kPairs = false, typename F>
TMKT_INLINE void each_tile(bool stream, int64_t inner, F tile) {
  constexpr int K = kPlaneTile / kLanes, kQuarter = K / 4;
  int64_t i = 0;
  const auto whole = [&](auto access) __attribute__((always_inline)) {
    using Access = decltype(access);
    using Lanes = std::conditional_t<kPairs, InPairs<Access>, InOrder<Access> >;
    for (; i + kPlaneTile <= inner; i += kPlaneTile) tile(IntTag<K>{}, Lanes{access}, i);
    for (; i + kPlaneTile / 4 <= inner; i += kPlaneTile / 4) tile(IntTag<kQuarter>{}, Lanes{access}, i);
  };
  if (stream) {
    whole(StreamedVector{});
  } else {
    whole(WholeVector{});
  }
  for (; i < inner; i += kLanes) {
    tile(IntTag<1>{}, InOrder<PartOfVector>{{std::min<int64_t>(kLanes, inner - i)}}, i);
  }
}

// Calls f(pairs): whether to take a plane's vectors InPairs, which streams lines of two.
template <typename T, typename F>
TMKT_INLINE void with_pairs(int64_t inner, const float* pooled, F f) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (inner % (2 * kStreamMultiple) == 0 && !pooled) return f(std::true_type{});
  }
  f(std::false_type{});
}

TMKT_INLINE double lane_sum(Floats x) {
  double sum = 0.0;
  for (int j = 0; j < kLanes; ++j) sum += x[j];
  return sum;
}

struct Moments {
  float mean, squares;  // mean minus the pivot, squared deviations from the mean
};

template <typename T>
TMKT_INLINE Moments moments_around(const T* plane, int64_t inner, float pivot) {
  constexpr int kSums = 4;  // independent, so that one addition does not wait for the one before
  Floats sums[kSums] = {}, squares[kSums] = {};
  const auto add = [&](int k, Floats x) __attribute__((always_inline)) {
    const Floats d = x - pivot;
    sums[k] += d;
    squares[k] += d * d;
  };
  int64_t i = 0;
  for (; i + kSums * kLanes <= inner; i += kSums * kLanes) {
    for (int k = 0; k < kSums; ++k) add(k, TMKT_SIMD::load(plane + i + k * kLanes));
  }
  for (; i + kLanes <= inner; i += kLanes) add(0, TMKT_SIMD::load(plane + i));
  float sum = 0.0f, square = 0.0f;
  if (i < inner) {
    const Floats d = PartOfVector{inner - i}.load(plane + i) - pivot;
    for (int64_t j = 0; j < inner - i; ++j) {
      sum += d[j];
      square += d[j] * d[j];
    }
  }
  const Floats all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  const Floats all_squares = (squares[0] + squares[1]) + (squares[2] + squares[3]);
  for (int j = 0; j < kLanes; ++j) {
    sum += all[j];
    square += all_squares[j];
  }
  const float mean = sum / static_cast<float>(inner);
  return {mean, square - sum * mean};
}

// Sizes of a plane and of its 2x2 averages; an odd last row or column is left out.
struct Pooling {
  int64_t width, out_width, out_height, out;

  explicit Pooling(const BnArgs& bn)
      : width(bn.pool_width), out_width(width / 2), out_height(bn.inner / width / 2), out(out_width * out_height) {}
};

// Calls f(access, x) along a row: vectors, and where the width is no multiple of theirs, the last one over lanes that
// are done already.
template <typename F>
TMKT_INLINE void along_row(int64_t width, F f) {
  if (width < kLanes) return f(PartOfVector{width}, 0);
  for (int64_t x = 0; x + kLanes <= width; x += kLanes) f(WholeVector{}, x);
  if (width % kLanes != 0) f(WholeVector{}, width - kLanes);
}

// Rows first, then pairs along all of a plane at once: row by row, the width of most images leaves half a vector idle.

// 2x2 averages of the spikes [T, height, width] of a plane -> [T, height / 2, width / 2] of args.spikes; `spikes` has
// T more rows, for the sums of rows. Each stage goes through all steps before the next: what has just been written is
// slow to read.
template <typename T>
void pool(const BnLifForwardArgs& args, float* spikes, int64_t plane) {
  const Pooling size(args.bn);
  const int64_t row = plane_row(args.bn.inner), planes = args.N / args.bn.inner;
  float* all_sums = spikes + args.T * row;
  for (int64_t t = 0; t < args.T; ++t) {
    for (int64_t y = 0; y < size.out_height; ++y) {
      const float* upper = spikes + t * row + 2 * y * size.width;
      const float* lower = upper + size.width;
      float* sums = all_sums + t * row + 2 * y * size.out_width;
      along_row(2 * size.out_width, [&](auto access, int64_t x) __attribute__((always_inline)) {
        store(access, access.load(upper + x) + access.load(lower + x), sums + x);
      });
    }
  }
  for (int64_t t = 0; t < args.T; ++t) {
    const float* __restrict sums = all_sums + t * row;
    T* pooled = static_cast<T*>(args.spikes) + (t * planes + plane) * size.out;
    float* __restrict averages;
    if constexpr (std::is_same_v<T, float>) {
      averages = pooled;
    } else {
      averages = spikes + t * row;
    }
    for (int64_t i = 0; i < size.out; ++i) averages[i] = 0.25f * (sums[2 * i] + sums[2 * i + 1]);
    if constexpr (!std::is_same_v<T, float>) {
      each_tile(false, size.out, [&](auto vectors, auto lanes, int64_t i) __attribute__((always_inline)) {
        Words held{};
        for (int k = 0; k < decltype(vectors)::value; ++k) {
          lanes.store(TMKT_SIMD::load(averages + i + k * kLanes), pooled + i, k, held);
        }
      });
    }
  }
}

// The adjoint of pool. What no average takes in, `grad` holds zeros for and keeps them.
template <typename T>
void unpool(const BnLifBackwardArgs& args, float* grad, int64_t plane) {
  const Pooling size(args.bn);
  const int64_t row = plane_row(args.bn.inner), planes = args.N / args.bn.inner;
  float* all_pairs = grad + args.T * row;
  for (int64_t t = 0; t < args.T; ++t) {
    const T* pooled = static_cast<const T*>(args.grad_spikes) + (t * planes + plane) * size.out;
    float* __restrict pairs = all_pairs + t * row;
    const float* __restrict of_averages;
    if constexpr (std::is_same_v<T, float>) {
      of_averages = pooled;
    } else {
      float* wide = all_pairs + args.T * row;
      each_tile(false, size.out, [&](auto vectors, auto lanes, int64_t i) __attribute__((always_inline)) {
        for (int k = 0; k < decltype(vectors)::value; ++k) write(lanes.load(pooled + i, k), wide + i + k * kLanes);
      });
      of_averages = wide;
    }
    for (int64_t i = 0; i < size.out; ++i) pairs[2 * i] = pairs[2 * i + 1] = 0.25f * of_averages[i];
  }
  for (int64_t t = 0; t < args.T; ++t) {
    for (int64_t y = 0; y < size.out_height; ++y) {
      const float* pairs = all_pairs + t * row + 2 * y * size.out_width;
      float* upper = grad + t * row + 2 * y * size.width;
      float* lower = upper + size.width;
      along_row(2 * size.out_width, [&](auto access, int64_t x) __attribute__((always_inline)) {
        const Floats quarters = access.load(pairs + x);
        store(access, quarters, upper + x);
        store(access, quarters, lower + x);
      });
    }
  }
}

// v before the first step, of vector k of a tile whose first neuron is n.
template <typename Lanes>
TMKT_INLINE Floats start_of(const LifArgs& args, Lanes lanes, const LifParams<float>& params, int64_t n, int k) {
  return args.v_init ? lanes.load(args.v_init + n, k) : Floats{} + params.v_reset;
}

// The neurons of one plane.
template <typename T, bool kPairs, typename R>
void fire(const BnLifForwardArgs& args, R reset, bool stream, float* pooled, int64_t plane) {
  const LifParams<float> params = shared_params(args).params;
  const Normalise normalise = channel_of(args.bn, plane);
  const int64_t inner = args.bn.inner, row = plane_row(inner);
  const T* x = static_cast<const T*>(args.x);
  T* spikes = static_cast<T*>(args.spikes);
  T* v_seq = static_cast<T*>(args.v_seq);
  each_tile<kPairs>(stream, inner, [&](auto vectors, auto lanes, int64_t i) __attribute__((always_inline)) {
    constexpr int K = decltype(vectors)::value;
    const int64_t n = plane * inner + i;
    Words held{}, held_v{};
    Floats v[K];
    for (int k = 0; k < K; ++k) v[k] = start_of(args, lanes, params, n, k);
    for (int64_t t = 0; t < args.T; ++t) {
      const int64_t at = t * args.N + n;
#pragma GCC unroll 16  // so that v stays in registers; going back it would not
      for (int k = 0; k < K; ++k) {
        prefetch(x + at + k * kLanes + kPlaneTile, 0);
        const Floats h = lif_charge(params, reset, v[k], normalise(lanes.load(x + at, k)));
        const Ints fired = lif_fires(params, reset, h);
        if (pooled) {
          write(spike_bits<float>(fired), pooled + t * row + i + k * kLanes);
        } else {
          lanes.put_spikes(fired, spikes + at, k, held);
        }
        if (v_seq) lanes.store(h, v_seq + at, k, held_v);
        v[k] = lif_reset(params, reset, h);
      }
    }
    for (int k = 0; k < K; ++k) lanes.store(v[k], args.v_last + n, k, held);
  });
}

// The adjoint of fire.
template <typename T, Asked kAsked, bool kPairs, typename R>
void fire_backward(const BnLifBackwardArgs& args, R reset, bool stream, const float* pooled, float* history,
                   int64_t plane, double (&sums)[2]) {
  const LifParams<float> params = shared_params(args).params;
  const Normalise normalise = channel_of(args.bn, plane);
  const float factor = args.batch_statistics && !args.again ? 1.0f : normalise.scale;
  const float g_mean = args.again ? args.g_mean[plane % args.bn.channels] : 0.0f;
  const float slope = args.again ? args.slope[plane % args.bn.channels] : 0.0f;
  constexpr bool kPlain = kAsked != Asked::kAnything;
  const bool detach = kPlain || args.detach_reset;
  const Derivatives<kAsked == Asked::kPlainAtan> derivatives(args.surrogate);
  const int64_t inner = args.bn.inner, row = plane_row(inner);
  const T* x = static_cast<const T*>(args.x);
  const T* grad_spikes = pooled ? nullptr : static_cast<const T*>(args.grad_spikes);
  const T* grad_v_seq = kPlain ? nullptr : static_cast<const T*>(args.grad_v_seq);
  T* grad_x = static_cast<T*>(args.grad_x);
  Floats g_sum{}, gd_sum{};
  each_tile<kPairs>(stream, inner, [&](auto vectors, auto lanes, int64_t i) __attribute__((always_inline)) {
    constexpr int K = decltype(vectors)::value, kBlock = kDerivatives<K, kAsked>;
    static_assert(K % kBlock == 0);
    const int64_t n = plane * inner + i;
    auto* kept = reinterpret_cast<Floats*>(history);
    Floats* centered =
        kept + args.T * K;  // not x again: T rows that lie a power of two apart push one another out of the cache
    Floats state[K];        // v, going forward; its gradient, coming back
    Words held{};
    for (int k = 0; k < K; ++k) state[k] = start_of(args, lanes, params, n, k);
    for (int64_t t = 0; t < args.T; ++t) {
      const int64_t at = t * args.N + n;
      for (int k = 0; k < K; ++k) {
        prefetch(x + at + k * kLanes + kPlaneTile, 0);
        // For the way back. Half a row aside: where x and this lie a multiple of 4 KB apart, a load and a prefetch of
        // the same column get into each other's way (benchmarks/results/tuning.md).
        if (grad_spikes) prefetch(grad_spikes + at + (k ^ K / 2) * kLanes, 0);
        centered[t * K + k] = lanes.load(x + at, k) - normalise.mean;
        const Floats current = centered[t * K + k] * normalise.scale + normalise.bias;
        const Floats h = lif_charge(params, reset, state[k], current);
        kept[t * K + k] = h;
        state[k] = lif_reset(params, reset, h);
      }
    }
    for (int k = 0; k < K; ++k) state[k] = args.grad_v_last ? lanes.load(args.grad_v_last + n, k) : Floats{};
    for (int64_t t = args.T - 1; t >= 0; --t) {
      const Floats* h = kept + t * K;
      const int64_t at = t * args.N + n;
      for (int block = 0; block < K; block += kBlock) {
        Floats ds_dh[kBlock];
        for (int j = 0; j < kBlock; ++j) ds_dh[j] = h[block + j] - params.v_threshold;
        derivatives(ds_dh, kBlock);
        for (int j = 0; j < kBlock; ++j) {
          const int k = block + j;
          Floats grad_s{}, grad_h{};
          if (grad_spikes) {
            grad_s = lanes.load(grad_spikes + at, k);
          } else if (pooled) {
            grad_s = TMKT_SIMD::load(pooled + t * row + i + k * kLanes);
          }
          if (grad_v_seq) grad_h = lanes.load(grad_v_seq + at, k);
          const Floats gradient = lif_adjoint(params, reset, detach, h[k], ds_dh[j], grad_s, state[k]) + grad_h;
          Floats g = params.b * gradient;
          g_sum += g;
          gd_sum += g * centered[t * K + k];
          if (args.again) g = g - g_mean - centered[t * K + k] * slope;
          lanes.store(factor * g, grad_x + at, k, held);
          Floats before = gradient;  // what only one reset looks at
          if (reset == Reset::kDelayedZero) {
            before = t > 0 ? lif_reset(params, reset, h[k - K]) : start_of(args, lanes, params, n, k);
          }
          state[k] = lif_charge_adjoint(params, reset, before, gradient);
        }
      }
    }
    if (args.grad_v_init) {
      for (int k = 0; k < K; ++k) lanes.store(state[k], args.grad_v_init + n, k, held);
    }
  });
  sums[0] = lane_sum(g_sum);
  sums[1] = lane_sum(gd_sum);
}

}  // namespace

void plane_moments(const LifArgs& args, const BnArgs& bn, const float* pivots, float* moments, int64_t begin,
                   int64_t end) {
  const int64_t cells = args.T * args.N / bn.inner;
  with_float(args.kind, [&](auto type) {
    const auto* x = static_cast<const typename decltype(type)::type*>(args.x);
    for (int64_t cell = begin; cell < end; ++cell) {
      const auto* plane = x + cell * bn.inner;
      const float pivot = pivots[cell % bn.channels];
      Moments of = moments_around(plane, bn.inner, pivot);
      if (of.mean * of.mean * static_cast<float>(bn.inner) > 16.0f * of.squares) {
        // The pivot lies far outside the plane's own spread, and the squares have lost their digits: once more, around
        // the mean.
        const float middle = pivot + of.mean;  // rounded: the second mean puts that right
        of = moments_around(plane, bn.inner, middle);
        of.mean += middle - pivot;
      }
      moments[cell] = of.mean;
      moments[cells + cell] = of.squares;
    }
  });
}

void planes_forward(const BnLifForwardArgs& args, bool stream, float* pooled, int64_t begin, int64_t end) {
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    with_reset(args.reset, [&](auto reset) {
      with_pairs<T>(args.bn.inner, pooled, [&](auto pairs) {
        for (int64_t plane = begin; plane < end; ++plane) {
          fire<T, decltype(pairs)::value>(args, reset, stream, pooled, plane);
          if (pooled) pool<T>(args, pooled, plane);
        }
      });
    });
  });
  if (stream) StreamedVector::end();
}

void planes_backward(const BnLifBackwardArgs& args, bool stream, float* pooled, float* history, double* sums,
                     int64_t begin, int64_t end) {
  const int64_t planes = args.N / args.bn.inner;
  with_float(args.kind, [&](auto type) {
    using T = typename decltype(type)::type;
    with_backward_variant<T>(args, [&](auto reset, auto asked) {
      with_pairs<T>(args.bn.inner, pooled, [&](auto pairs) {
        for (int64_t plane = begin; plane < end; ++plane) {
          if (pooled) unpool<T>(args, pooled, plane);
          double of_plane[2];
          fire_backward<T, decltype(asked)::value, decltype(pairs)::value>(args, reset, stream, pooled, history, plane,
                                                                           of_plane);
          sums[plane] = of_plane[0];
          sums[planes + plane] = of_plane[1];
        }
      });
    });
  });
  if (stream) StreamedVector::end();
}

void planes_finish(const BnLifBackwardArgs& args, int64_t begin, int64_t end) {
  const int64_t inner = args.bn.inner;
  for (int64_t plane = begin; plane < end; ++plane) {
    const int64_t c = plane % args.bn.channels;
    const float mean = args.bn.mean[c], scale = args.bn.scale[c], g_mean = args.g_mean[c], slope = args.slope[c];
    const float* x = static_cast<const float*>(args.x) + plane * inner;
    float* grad_x = static_cast<float*>(args.grad_x) + plane * inner;
    each_tile(false, inner, [&](auto vectors, auto lanes, int64_t i) __attribute__((always_inline)) {
      Words held{};
      for (int k = 0; k < decltype(vectors)::value; ++k) {
        const Floats g = lanes.load(grad_x + i, k) - g_mean - (lanes.load(x + i, k) - mean) * slope;
        lanes.store(scale * g, grad_x + i, k, held);
      }
    });
  }
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
