// Runs CUDA kernels on the CPU: the threads of a cluster of blocks are fibers, which a scheduler resumes in random
// order between the places where they wait for one another. include/cuda_runtime.h puts CUDA's names on top of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace emulator {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr Dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Of the running fiber.
extern unsigned cluster_rank, cluster_size;

constexpr int kWarp = 32;
constexpr size_t kSharedWithoutOptIn = 48 << 10, kSharedMost = 227 << 10;  // bytes per block, of compute capability 9.0
constexpr int kMultiprocessors = 132, kThreadsMost = 1024;

// The place where a thread waits: the barrier or warp function by name, and its position in the source.
struct Site {
  const char *what, *file;
  int line;
};

// CUDA's error codes.
enum Error { kSuccess = 0, kInvalidValue = 1, kInvalidConfiguration = 9, kLaunchFailure = 719, kInvalidCluster = 912 };

struct Config {
  Dim3 grid, block;
  size_t dynamic_shared;
  unsigned cluster = 1;

  Config(Dim3 grid_, Dim3 block_, size_t dynamic_shared_ = 0, void* /*stream*/ = nullptr)
      : grid(grid_), block(block_), dynamic_shared(dynamic_shared_) {}
};

// The limits that cudaFuncSetAttribute raised for a kernel.
struct Grants {
  size_t dynamic_shared = kSharedWithoutOptIn;
  bool large_cluster = false;
};
Grants& grants(const void* kernel);

// Runs `body` once per thread of the grid. Returns the error of an impossible configuration, or of a defect that a
// thread meets; last_error() keeps it.
Error run(const Config& config, const void* kernel, const std::function<void()>& body);
Error last_error(bool clear);
const char* error_text(Error error);

// Ends the launch with `message` as its error; called by the running fiber.
[[noreturn]] void fail(const char* message);

// In each, a thread waits for the others. The barrier of a block returns the number of threads with `predicate` true.
int wait_for_block(Site site, bool predicate);
void wait_for_cluster(Site site);
// The values of all lanes, with poison for lanes outside `mask` or exited.
const uint64_t* exchange(Site site, uint32_t mask, uint64_t value, bool orders_memory);

// Shared memory of this block, at the same offset in all blocks; `key` identifies it.
void* shared(const void* key, size_t bytes, size_t alignment);
void* dynamic_shared(size_t alignment);
// The same variable in the shared memory of block `rank` of the cluster.
void* shared_of(const void* pointer, unsigned rank);

// Replaces `__shared__ T name;`. `Key` is a closure type, so that each instantiation of a kernel has its own.
template <typename T, typename Key>
T& shared(Key, size_t alignment) {
  static const char key = 0;
  return *static_cast<T*>(shared(&key, sizeof(T), alignment > alignof(T) ? alignment : alignof(T)));
}
template <typename T>
T* dynamic_shared_array(size_t alignment) {
  return static_cast<T*>(dynamic_shared(alignment));
}

// Replaces `kernel<<<config>>>(arguments)`.
template <typename... Parameters, typename... Arguments>
Error launch(const Config& config, void (*kernel)(Parameters...), const Arguments&... arguments) {
  const auto body = [&] { kernel(static_cast<Parameters>(arguments)...); };
  return run(config, reinterpret_cast<const void*>(kernel), body);
}

}  // namespace emulator

// Also of the running fiber. One launch runs at a time, whichever host thread starts it.
extern emulator::Dim3 threadIdx, blockIdx, blockDim, gridDim;
