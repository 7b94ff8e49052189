// 2x2 average pooling of the spikes of a plane, and its adjoint.
#pragma once

#include "bn_lif/bn_planes_simd.h"
#include "common/lanes_simd-inl.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

// Tile sizes of a plane: whole tiles, quarters, then single vectors.
template <LaneOrder kOrder, typename F>
TMKT_INLINE void for_each_plane_tile(bool stream, int64_t begin, int64_t end, F tile) {
  constexpr int K = kPlaneTile / kLanes;
  for_each_tile<kOrder, K, K / 4>(stream, begin, end, tile);
}

// Sizes of a plane and of its 2x2 averages; an odd last row or column is left out.
struct Pooling {
  int64_t width, out_width, out_height, out;

  explicit Pooling(const BnArgs& bn)
      : width(bn.pool_width), out_width(width / 2), out_height(bn.inner / width / 2), out(out_width * out_height) {}
};

// Calls f(access, x) along a row, vector by vector. If the width is not a multiple of the vector, the last one overlaps
// the one before it, so f must be idempotent.
template <typename F>
TMKT_INLINE void along_row(int64_t width, F f) {
  if (width < kLanes) return f(PartOfVector{width}, 0);
  for (int64_t x = 0; x + kLanes <= width; x += kLanes) f(WholeVector{}, x);
  if (width % kLanes != 0) f(WholeVector{}, width - kLanes);
}

// 2x2 averages of the spikes [T, height, width] of a plane -> [T, height / 2, width / 2] of args.spikes. `spikes` has
// T more rows for the row sums. Row pairs are added first, then column pairs over the whole plane, because along single
// rows most image widths leave half a vector idle. Each stage runs over all steps before the next begins, because
// reading what was just written is slow.
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
      for_each_plane_tile<LaneOrder::kContiguous>(
          false, 0, size.out, [&](auto vectors, auto lanes) __attribute__((always_inline)) {
            Words held{};
            for (int k = 0; k < decltype(vectors)::value; ++k) {
              lanes.store(TMKT_SIMD::load(averages + lanes.n + k * kLanes), pooled, k, held);
            }
          });
    }
  }
}

// Adjoint of pool. An odd last row or column belongs to no 2x2 cell; its gradient in `grad` is zero and stays so.
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
      for_each_plane_tile<LaneOrder::kContiguous>(false, 0, size.out,
                                                  [&](auto vectors, auto lanes) __attribute__((always_inline)) {
                                                    for (int k = 0; k < decltype(vectors)::value; ++k) {
                                                      write(lanes.load(pooled, k), wide + lanes.n + k * kLanes);
                                                    }
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

}  // namespace
}  // namespace TMKT_SIMD
}  // namespace tmkt
