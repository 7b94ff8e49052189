// bn_lif for channels that lie in planes [inner]: plane p of a step belongs to channel p % channels.
#pragma once

#include "bn_lif/bn_lif_args.h"
#include "common/simd.h"

namespace tmkt {

// Neurons in a tile of a plane, whole vectors at every SIMD level.
constexpr int64_t kPlaneTile = 256;

// Floats in a row of `pooled`: whole vectors at every SIMD level.
constexpr int64_t plane_row(int64_t inner) { return (inner + 15) / 16 * 16; }

// Floats in `pooled`, zero-initialised: T rows of spikes, T rows of row sums, and one row of padding.
constexpr int64_t pooled_floats(int64_t T, int64_t inner) { return (2 * T + 1) * plane_row(inner); }

// Planes begin..end of a step. `stream`: as in lif_forward. `pooled`: scratch for the spikes of a plane, in backward
// for their gradients. `history`: scratch of 2 T * kPlaneTile floats. Both are aligned to 64 bytes.
TMKT_DECLARE_SIMD(void planes_forward(const BnLifForwardArgs& args, bool stream, float* pooled, int64_t begin,
                                      int64_t end))
// Writes grad_x as BnLifBackwardArgs says, and the sums [2, planes] of g and of g (x - mean).
TMKT_DECLARE_SIMD(void planes_backward(const BnLifBackwardArgs& args, bool stream, float* pooled, float* history,
                                       double* sums, int64_t begin, int64_t end))
// The second pass over planes begin..end of all [T, planes] of grad_x in float32.
TMKT_DECLARE_SIMD(void planes_finish(const BnLifBackwardArgs& args, int64_t begin, int64_t end))

}  // namespace tmkt
