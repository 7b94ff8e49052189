// Surrogate derivatives of a row of vectors.
#pragma once

#include "common/surrogate.h"
#include "common/vector_simd-inl.h"

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

// Derivatives of one surrogate, compiled into the surrounding loop; or of any surrogate, chosen once per tile, so that
// the loops need not be compiled for each.
template <bool kAtan>
class Derivatives {
 public:
  explicit Derivatives(SurrogateShape shape)
      : shape_(shape), row_(surrogate_row(shape.surrogate, std::make_integer_sequence<int64_t, kSurrogates>{})) {}
  TMKT_INLINE void operator()(Floats* u, int count) const {
    if constexpr (kAtan) {
      for (int k = 0; k < count; ++k) {
        u[k] = surrogate_derivative<Floats>(Surrogate::kAtan, u[k], shape_.alpha, shape_.beta);
      }
    } else {
      row_(shape_.alpha, shape_.beta, u, count);
    }
  }

 private:
  SurrogateShape shape_;
  SurrogateRow row_;
};

}  // namespace TMKT_SIMD
}  // namespace tmkt
