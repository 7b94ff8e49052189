// Host-side preparation of backward, for any neuron.
#pragma once

#include "common/stable.h"
#include "scan/scan.cuh"

namespace tmkt {

// Memory for v at the start of each chunk of steps but the first, [chunks, N]; empty if one chunk holds all of T.
struct ChunkStarts {
  OptionalTensor memory;
  float* v = nullptr;

  ChunkStarts(const Tensor& x, const ScanArgs& args) {
    const int64_t chunks = (args.T - 1) / kChunk;
    if (chunks == 0) return;
    memory = new_empty(x, {chunks, args.N}, ScalarType::Float);
    v = data<float>(*memory);
  }
};

// Whether every row that backward reads and writes is aligned to words of 16 bytes, given that N is a multiple of them.
inline bool in_whole_words(const ScanBackwardArgs& args, const ChunkStarts& starts) {
  return aligned({args.x, args.v_init, args.grad_spikes, args.grad_v_last, args.grad_v_seq, args.grad_x,
                  args.grad_v_init, starts.v},
                 16);
}

}  // namespace tmkt
