// A CUDA thread as a fiber, and the memory of a cluster of blocks.
#pragma once

#include <sys/mman.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "emulator.h"

#ifdef EMULATOR_ADDRESS
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMULATOR_THREAD
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif

// Pushes the registers that a callee must preserve, stores the stack pointer in *from and continues where `to` stopped.
extern "C" void emulator_swap(void** from, void* to) __attribute__((visibility("hidden")));
asm(R"(
.text
.globl emulator_swap
.hidden emulator_swap
.type emulator_swap, @function
emulator_swap:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size emulator_swap, . - emulator_swap
)");

namespace emulator {
namespace {

constexpr size_t kPage = 4096, kStack = 256 << 10, kShared = 256 << 10, kDynamicAlignment = 16;
constexpr unsigned kPortableCluster = 8, kLargeCluster = 16;
constexpr int kPoison = 0xff;  // NaN as float, double and both half types; -1 as an integer

// Calls that describe fibers to ThreadSanitizer. Only the launch, __syncwarp and barriers order fibers.
#ifdef EMULATOR_THREAD
void released(void* object) { __tsan_release(object); }
void acquired(void* object) { __tsan_acquire(object); }
#else
void released(void*) {}
void acquired(void*) {}
#endif

enum class State { kReady, kInWarp, kInBlock, kInCluster, kDone };

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  State state = State::kReady;
  unsigned rank = 0, thread = 0;  // of the block in the cluster, of the thread in the block
  Site site{};
  bool predicate = false;
  int count = 0;  // of true predicates in a block
  uint32_t mask = 0;
  uint64_t value = 0;
  std::array<uint64_t, kWarp> received{};
  unsigned turns[2] = {};  // number of waits for its block, and for its cluster
  void *fake_stack = nullptr, *tsan = nullptr;
};

std::string place(const Site& site) {
  return std::string(site.what) + " at " + site.file + ":" + std::to_string(site.line);
}

// A variable in shared memory.
struct Variable {
  size_t offset, bytes;
};

// Memory of a cluster: shared memory and synchronisation objects of each block, then stacks, each above a guard page.
class Memory {
 public:
  // ThreadSanitizer needs new memory per cluster; otherwise it reports races between successive clusters.
  void reserve(size_t blocks, size_t fibers) {
    const size_t wanted = blocks * (kShared + kPage) + fibers * kStack;
#ifndef EMULATOR_THREAD
    if (wanted <= bytes_ && blocks == blocks_) return;
#endif
    unpoison();
    if (base_) munmap(base_, bytes_);
    bytes_ = wanted, blocks_ = blocks;
    void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) std::perror("emulator: mmap"), std::abort();
    base_ = static_cast<char*>(mapped);
    for (size_t i = 0; i < fibers; ++i) mprotect(stack(i), kPage, PROT_NONE);
  }
  char* shared(size_t rank) const { return base_ + rank * (kShared + kPage); }
  // The object by which ThreadSanitizer orders threads that wait for one another. Two turns of a barrier have two
  // objects, because a thread may be one barrier ahead.
  char* object(const Fiber& fiber, State state) const {
    const bool cluster = state == State::kInCluster;
    const unsigned slot = state == State::kInWarp ? 2 + fiber.thread / kWarp : cluster;
    const unsigned turn = state == State::kInWarp ? 0 : fiber.turns[cluster] % 2;
    return shared(cluster ? 0 : fiber.rank) + kShared + 64 * slot + 8 * turn;
  }
  void unpoison() const {
#ifdef EMULATOR_ADDRESS
    __asan_unpoison_memory_region(base_, bytes_);
#endif
  }
  char* stack(size_t fiber) const { return base_ + blocks_ * (kShared + kPage) + fiber * kStack; }

 private:
  char* base_ = nullptr;
  size_t bytes_ = 0, blocks_ = 0;
};

}  // namespace
}  // namespace emulator
