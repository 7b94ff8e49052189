// bn_lif where the neurons of a channel lie in planes [inner]: plane p of a step belongs to channel p % channels.
#pragma once

#include "bn_lif/bn_lif_args.h"
#include "common/simd.h"

namespace tmkt {

// A plane is worked on in tiles of so many neurons, whole vectors at every SIMD level.
constexpr int64_t kPlaneTile = 256;

// Floats in a row of `pooled`: whole vectors at every SIMD level.
constexpr int64_t plane_row(int64_t inner) { return (inner + 15) / 16 * 16; }

// Floats in `pooled`, zero at first: T rows of spikes, T rows of what the pooling adds up, and one row more.
constexpr int64_t pooled_floats(int64_t T, int64_t inner) { return (2 * T + 1) * plane_row(inner); }

// Below, planes begin..end of a step. `stream`: as in lif_forward. `pooled`: room for the spikes of a plane, or, going
// back, their gradients; `history`: for 2 T * kPlaneTile floats, both aligned to 64 bytes.
TMKT_DECLARE_SIMD(void planes_forward(const BnLifForwardArgs& args, bool stream, float* pooled, int64_t begin,
                                      int64_t end))
// Leaves in grad_x what BnLifBackwardArgs says of the passes, and in sums [2, planes] those of g and of g (x - mean).
TMKT_DECLARE_SIMD(void planes_backward(const BnLifBackwardArgs& args, bool stream, float* pooled, float* history,
                                       double* sums, int64_t begin, int64_t end))
// The second pass over planes begin..end of all [T, planes] of grad_x in float32.
TMKT_DECLARE_SIMD(void planes_finish(const BnLifBackwardArgs& args, int64_t begin, int64_t end))

}  // namespace tmkt
