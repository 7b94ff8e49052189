// Place and rows of a thread's neurons.
#pragma once

#include "common/cuda.h"

namespace tmkt {
namespace {

// A place: where the kWidth neurons of a thread lie in a step [N]. Here they are neighbours, from n on.
template <int kNeurons>
struct AdjacentNeurons {
  static constexpr int kWidth = kNeurons;
  template <typename T>
  using Row = Packed<T, kWidth>;
  int64_t n;

  // `first`: address of the first neuron in a step, i.e. step + n.
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

// Reads or writes a thread's rows of a [T, N] tensor in sequence. Moving an address by a row takes two instructions;
// computing it from t would take a dozen.
template <typename T, typename Place>
struct RowCursor {
  const Place& place;
  T* first;
  int64_t by;

  // Starts at step t and moves by `by` values: N forward, -N backward.
  __device__ __forceinline__ RowCursor(const Place& place, T* tensor, int64_t N, int64_t t, int64_t by)
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

}  // namespace
}  // namespace tmkt
