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

template <int64_t... kNumbers>
static void surrogate_row(const SurrogateShape& shape, Floats* u, int count,
                          std::integer_sequence<int64_t, kNumbers...>) {
  using Row = void (*)(float, float, Floats*, int);
  static constexpr Row kRows[] = {surrogate_row_of<static_cast<Surrogate>(kNumbers)>...};
  kRows[static_cast<int64_t>(shape.surrogate)](shape.alpha, shape.beta, u, count);
}

// Replaces u by the derivative. Chosen once for a row: the loops around it need not be compiled for each surrogate.
static inline void surrogate_row(const SurrogateShape& shape, Floats* u, int count) {
  surrogate_row(shape, u, count, std::make_integer_sequence<int64_t, kSurrogates>{});
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
