// The groups that csrc/ uses: a block, and a cluster of blocks in x.
#pragma once

#include "cuda_runtime.h"

namespace cooperative_groups {

struct thread_block {
  static void sync(EMULATOR_CALLER) { emulator::wait_for_block({"thread_block::sync", file, line}, false); }
  static unsigned thread_rank() {
    const auto &t = threadIdx, &size = blockDim;
    return t.x + size.x * (t.y + size.y * t.z);
  }
  static unsigned size() { return blockDim.x * blockDim.y * blockDim.z; }
};
inline thread_block this_thread_block() { return {}; }

struct cluster_group {
  static void sync(EMULATOR_CALLER) { emulator::wait_for_cluster({"cluster_group::sync", file, line}); }
  static unsigned block_rank() { return emulator::cluster_rank; }
  static unsigned num_blocks() { return emulator::cluster_size; }
  static unsigned dim_blocks() { return emulator::cluster_size; }
  static unsigned num_threads() { return emulator::cluster_size * thread_block::size(); }
  static unsigned thread_rank() { return block_rank() * thread_block::size() + thread_block::thread_rank(); }
  template <typename T>
  static T* map_shared_rank(T* pointer, unsigned rank) {
    return static_cast<T*>(emulator::shared_of(pointer, rank));
  }
};
inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
