// Surrogate derivatives of a row of vectors, for *_simd.cpp files.
#pragma once

#include "common/surrogate.h"
#include "common/vector_simd.h"

namespace tmkt {
namespace TMKT_SIMD {

template <Surrogate kSurrogate>
static void surrogate_row_of(float alpha, float beta, Floats* u, int count) {
  for (int k = 0; k < count; ++k) u[k] = surrogate_derivative<Floats>(kSurrogate, u[k], alpha, beta);
}

// Replaces `count` vectors of u by the derivative.
using SurrogateRow = void (*)(float alpha, float beta, Floats* u, int count);

template <int64_t... kNumbers>
static SurrogateRow surrogate_row(Surrogate surrogate, std::integer_sequence<int64_t, kNumbers...>) {
  static constexpr SurrogateRow kRows[] = {surrogate_row_of<static_cast<Surrogate>(kNumbers)>...};
  return kRows[static_cast<int64_t>(surrogate)];
}

// Chosen once for a tile: the loops around it need not be compiled for each surrogate.
static inline SurrogateRow surrogate_row(Surrogate surrogate) {
  return surrogate_row(surrogate, std::make_integer_sequence<int64_t, kSurrogates>{});
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
