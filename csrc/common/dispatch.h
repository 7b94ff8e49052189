// Run-time values to template arguments: with_x(value, f) calls f with the value as a type.
#pragma once

#include <type_traits>

#include "common/numeric.h"

namespace tmkt {

template <typename T>
struct TypeTag {
  using type = T;
};

// The float types that every kernel takes and gives.
enum class FloatKind { kFloat32, kBFloat16, kFloat16 };

// The functions are static: each SIMD level and each translation unit must keep its own copy.
template <typename F>
static inline void with_float(FloatKind kind, F f) {
  switch (kind) {
    case FloatKind::kFloat32:
      return f(TypeTag<float>{});
    case FloatKind::kBFloat16:
      return f(TypeTag<BFloat16>{});
    case FloatKind::kFloat16:
      return f(TypeTag<Float16>{});
  }
}

template <int kValue>
using IntTag = std::integral_constant<int, kValue>;

template <auto... kValues, typename Value, typename F>
static inline void with_value(Value value, F f) {
  ((value == kValues ? f(std::integral_constant<Value, kValues>{}) : void()), ...);
}

}  // namespace tmkt
