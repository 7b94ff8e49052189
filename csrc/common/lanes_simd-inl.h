// A tile: K vectors of neighbours in a row of a step, and access to them.
#pragma once

#include <algorithm>

#include "common/cpu.h"
#include "common/vector_simd-inl.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

// Vector k holds the kLanes values from n + k * kLanes on, of the row [N] that `row` points to. Access is WholeVector,
// StreamedVector, or for K = 1 PartOfVector. `held` keeps the part of a row that is stored with the next vector.
template <typename A>
struct ContiguousLanes {
  using Access = A;
  Access access;
  int64_t n;

  template <typename T>
  TMKT_INLINE Floats load(const T* row, int k) const {
    return access.load(row + n + k * kLanes);
  }
  template <typename T>
  TMKT_INLINE void store(Floats x, T* row, int k, Words& /*held*/) const {
    TMKT_SIMD::store(access, x, row + n + k * kLanes);
  }
  template <typename T>
  TMKT_INLINE void store_spikes(Ints fired, T* row, int k, Words& /*held*/) const {
    access.put(spike_bits<T>(fired), row + n + k * kLanes);
  }
};

// Reads one cache line of bfloat16 as two vectors, its even and its odd values: a shift and a mask widen them, and one
// store packs them. Widening and narrowing one vector at a time would be slower than all other arithmetic of a neuron.
// Neurons are independent, so any order will do as long as every array uses it.
template <typename A>
struct InterleavedLanes {
  using Access = A;
  Access access;
  int64_t n;

  TMKT_INLINE Floats load(const BFloat16* row, int k) const {
    const Words line = read<Words>(row + n + k / 2 * 2 * kLanes);
    return (Floats)(k % 2 == 0 ? line << 16 : line & kUpper);
  }
  TMKT_INLINE void store(Floats x, BFloat16* row, int k, Words& held) const { put(round_to_bfloat16(x), row, k, held); }
  TMKT_INLINE void store_spikes(Ints fired, BFloat16* row, int k, Words& held) const {
    put(spike_bits<float>(fired), row, k, held);
  }
  // Lane by lane, because it runs once for all T steps.
  TMKT_INLINE Floats load(const float* row, int k) const {
    Floats x{};
    for (int j = 0; j < kLanes; ++j) x[j] = row[n + k / 2 * 2 * kLanes + 2 * j + k % 2];
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
    access.put((Words)lower, row + n + (k - 1) * kLanes);
    access.put((Words)upper, row + n + k * kLanes);
  }

 private:
  static constexpr uint32_t kUpper = 0xffff0000u;

  // The upper halves of `bits` are the values.
  TMKT_INLINE void put(Words bits, BFloat16* row, int k, Words& held) const {
    if (k % 2 == 0) {
      held = bits >> 16;
    } else {
      access.put(held | (bits & kUpper), row + n + (k - 1) * kLanes);
    }
  }
};

// Number of neurons in K vectors; the last vector may be partly filled.
template <int K, typename Lanes>
TMKT_INLINE int64_t count_of(Lanes lanes) {
  return (K - 1) * kLanes + lanes.access.width;
}

enum class LaneOrder { kContiguous, kInterleaved };

// Calls tile(vectors, lanes) for begin..end: tiles of each of the sizes kTiles (in vectors), the largest first, then
// single vectors, the last of which may be partly filled. `stream`: write whole tiles past the caches. `tile` must be
// force-inlined, because otherwise GCC spills its captures to memory, which costs a third of the run time.
template <LaneOrder kOrder, int... kTiles, typename F>
TMKT_INLINE void for_each_tile(bool stream, int64_t begin, int64_t end, F tile) {
  int64_t n = begin;
  const auto whole = [&](auto access) __attribute__((always_inline)) {
    using Access = decltype(access);
    using Lanes =
        std::conditional_t<kOrder == LaneOrder::kInterleaved, InterleavedLanes<Access>, ContiguousLanes<Access>>;
    const auto tiles = [&](auto vectors) __attribute__((always_inline)) {
      constexpr int64_t kWidth = decltype(vectors)::value * kLanes;
      for (; n + kWidth <= end; n += kWidth) tile(vectors, Lanes{access, n});
    };
    (tiles(IntTag<kTiles>{}), ...);
  };
  if (stream) {
    whole(StreamedVector{});
  } else {
    whole(WholeVector{});
  }
  for (; n < end; n += kLanes) {
    tile(IntTag<1>{}, ContiguousLanes<PartOfVector>{{std::min<int64_t>(kLanes, end - n)}, n});
  }
}

// Spreads channel values over the neurons n.. of a step; neuron n belongs to channel n / inner % channels.
inline void spread_channels(const float* values, int64_t channels, int64_t inner, int64_t n, int64_t count,
                            float* row) {
  for (int64_t j = 0; j < count;) {  // run by run: neurons of one channel, or of neighbouring channels
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

}  // namespace
}  // namespace TMKT_SIMD
}  // namespace tmkt
