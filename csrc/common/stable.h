// The only file that includes torch's headers: the LibTorch stable ABI, under our own names.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <tuple>

#include "common/dispatch.h"

namespace tmkt {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

using torch::headeronly::IntHeaderOnlyArrayRef;

// torch raises a RuntimeError with exactly this text. STD_TORCH_CHECK would prepend our source file.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

template <typename... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) fail(parts...);
}

// Uninitialised, contiguous, on the device of `like`.
inline Tensor new_empty(const Tensor& like, IntHeaderOnlyArrayRef size, ScalarType dtype) {
  return torch::stable::new_empty(like, size, dtype);
}

template <typename T = void>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

template <typename T = void>
const T* data(const OptionalTensor& tensor) {
  return tensor ? static_cast<const T*>(tensor->data_ptr()) : nullptr;
}

// Checks for direct calls of torch.ops.tmkt. The Python layer checks first, names the user's tensors and gives
// remedies.
inline void check_tensor(const char* op, const char* name, const Tensor& tensor, int64_t dim, const Tensor& like) {
  check(tensor.dim() == dim, op, ": ", name, ": expected ", dim, " dimensions, got ", tensor.dim());
  check(tensor.is_contiguous(), op, ": ", name, ": expected a contiguous tensor");
  check(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(), op, ": ", name,
        ": expected all tensors on one device");
}

inline void check_dtype(const char* op, const char* name, const Tensor& tensor, ScalarType expected) {
  check(tensor.scalar_type() == expected, op, ": ", name, ": expected dtype ", torch::headeronly::toString(expected),
        ", got ", torch::headeronly::toString(tensor.scalar_type()));
}

// Gradients of [T, ...] outputs: shape, dtype and device of x.
inline void check_like_sequence(const char* op, const char* name, const OptionalTensor& tensor, const Tensor& x) {
  if (!tensor) return;
  check_tensor(op, name, *tensor, x.dim(), x);
  check_dtype(op, name, *tensor, x.scalar_type());
  check(tensor->sizes().equals(x.sizes()), op, ": ", name, ": expected x's shape");
}

// Potentials and their gradients: float32, with the shape of one step of x.
inline void check_like_step(const char* op, const char* name, const OptionalTensor& tensor, const Tensor& x) {
  if (!tensor) return;
  check_tensor(op, name, *tensor, x.dim() - 1, x);
  check_dtype(op, name, *tensor, ScalarType::Float);
  check(tensor->sizes().equals(x.sizes().slice(1)), op, ": ", name, ": expected the shape of one step of x");
}

inline FloatKind float_kind(const char* op, const char* name, ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return FloatKind::kFloat32;
    case ScalarType::BFloat16:
      return FloatKind::kBFloat16;
    case ScalarType::Half:
      return FloatKind::kFloat16;
    default:
      fail(op, ": ", name, ": expected float32, bfloat16 or float16, got ", torch::headeronly::toString(dtype));
  }
}

}  // namespace tmkt
