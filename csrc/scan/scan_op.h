// Checks and outputs shared by the operators that loop over time: the part of them in ScanArgs.
#pragma once

#include "common/stable.h"
#include "scan/scan_args.h"

namespace tmkt {

inline void set_sequence(ScanArgs& args, const char* op, const Tensor& x, const OptionalTensor& v_init) {
  check(x.dim() >= 1 && x.size(0) >= 1, op, ": x: expected [T, ...] with T >= 1");
  check_tensor(op, "x", x, x.dim(), x);
  check_like_step(op, "v_init", v_init, x);
  args.kind = float_kind(op, "x", x.scalar_type());
  args.T = x.size(0);
  args.N = x.numel() / args.T;
  args.x = x.data_ptr();
  args.v_init = data<float>(v_init);
}

inline SurrogateShape surrogate_shape(const char* op, int64_t surrogate, double alpha, double beta) {
  check(surrogate >= 0 && surrogate < kSurrogates, op, ": surrogate: unknown number ", surrogate);
  return {.surrogate = static_cast<Surrogate>(surrogate),
          .alpha = static_cast<float>(alpha),
          .beta = static_cast<float>(beta)};
}

struct Potentials {
  Tensor v_last, v_seq;  // v_seq is empty unless requested
};

inline Potentials new_potentials(ScanForwardArgs& args, const Tensor& x, bool return_v) {
  Potentials out{.v_last = new_empty(x, x.sizes().slice(1), ScalarType::Float),
                 .v_seq = return_v ? new_empty(x, x.sizes(), x.scalar_type()) : new_empty(x, {0}, x.scalar_type())};
  args.v_last = data<float>(out.v_last);
  args.v_seq = return_v ? out.v_seq.data_ptr() : nullptr;
  return out;
}

inline void set_potential_gradients(ScanBackwardArgs& args, const char* op, const Tensor& x,
                                    const OptionalTensor& grad_v_last, const OptionalTensor& grad_v_seq) {
  check_like_sequence(op, "grad_v_seq", grad_v_seq, x);
  check_like_step(op, "grad_v_last", grad_v_last, x);
  args.grad_v_last = data<float>(grad_v_last);
  args.grad_v_seq = data(grad_v_seq);
}

struct Gradients {
  Tensor grad_x, grad_v_init;  // grad_v_init is empty without v_init
};

inline Gradients new_gradients(ScanBackwardArgs& args, const Tensor& x, const OptionalTensor& v_init) {
  Gradients out{.grad_x = new_empty(x, x.sizes(), x.scalar_type()),
                .grad_v_init = v_init ? new_empty(x, x.sizes().slice(1), ScalarType::Float)
                                      : new_empty(x, {0}, ScalarType::Float)};
  args.grad_x = out.grad_x.data_ptr();
  args.grad_v_init = v_init ? data<float>(out.grad_v_init) : nullptr;
  return out;
}

}  // namespace tmkt
