// bn_lif neuron by neuron, each with the values of its channel: for channels that are short planes or lie side by side.
#pragma once

#include "bn_lif/bn_lif_args.h"
#include "common/simd.h"

namespace tmkt {

TMKT_DECLARE_SIMD(void bn_lif_forward(const BnLifForwardArgs& args, bool stream, int64_t begin, int64_t end))
// `history`: as in lif_backward.
TMKT_DECLARE_SIMD(void bn_lif_backward(const BnLifBackwardArgs& args, bool stream, float* history, int64_t begin,
                                       int64_t end))
// The second pass over values begin..end of grad_x in float32.
TMKT_DECLARE_SIMD(void bn_lif_finish(const BnLifBackwardArgs& args, int64_t begin, int64_t end))

}  // namespace tmkt
