// The scheduler, compiled without sanitizers because it describes its fibers to them.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "fibers.h"

emulator::Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

unsigned cluster_rank, cluster_size;

namespace {

std::mutex one_at_a_time;
std::map<const void*, Grants> granted;
Error error = kSuccess;
std::string message;

// The running launch.
Memory memory;
std::mt19937_64 generator{[] {
  const char* seed = std::getenv("TMKT_EMULATOR_SEED");
  return seed ? std::strtoull(seed, nullptr, 10) : 1;
}()};
const std::function<void()>* body = nullptr;
std::vector<Fiber> fibers;
Fiber* self = nullptr;
void* scheduler = nullptr;  // its stack pointer
std::map<const void*, Variable> variables;
size_t shared_bytes = 0, dynamic_bytes = 0;
unsigned first_block = 0;  // of the running cluster
bool failed = false;
char launched = 0, finished = 0;  // ThreadSanitizer's objects of the launch
#ifdef EMULATOR_ADDRESS
void* scheduler_fake_stack = nullptr;
const void* scheduler_bottom = nullptr;
size_t scheduler_size = 0;
#endif
#ifdef EMULATOR_THREAD
void* scheduler_tsan = nullptr;
#endif

void note_failure(const std::string& what) {
  failed = true;
  message = what;
  std::fprintf(stderr, "emulator: %s\n", what.c_str());
}

std::string name(const Fiber& fiber) {
  return "block " + std::to_string(first_block + fiber.rank) + ", thread " + std::to_string(fiber.thread);
}

void to_scheduler([[maybe_unused]] bool last = false) {
  [[maybe_unused]] Fiber* me = self;
#ifdef EMULATOR_ADDRESS
  __sanitizer_start_switch_fiber(last ? nullptr : &me->fake_stack, scheduler_bottom, scheduler_size);
#endif
#ifdef EMULATOR_THREAD
  __tsan_switch_to_fiber(scheduler_tsan, 1);
#endif
  emulator_swap(&self->stack_pointer, scheduler);
#ifdef EMULATOR_ADDRESS
  __sanitizer_finish_switch_fiber(me->fake_stack, nullptr, nullptr);
#endif
}

void entry() {
#ifdef EMULATOR_ADDRESS
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
  acquired(&launched);
  (*body)();
  released(&finished);
  self->state = State::kDone;
  to_scheduler(true);
  std::abort();  // nobody resumes a finished fiber
}

void resume(Fiber& fiber) {
  self = &fiber;
  const unsigned t = fiber.thread, b = first_block + fiber.rank;
  threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
  blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
  cluster_rank = fiber.rank;
#ifdef EMULATOR_ADDRESS
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack, kStack - kPage);
#endif
#ifdef EMULATOR_THREAD
  __tsan_switch_to_fiber(fiber.tsan, 1);
#endif
  emulator_swap(&scheduler, fiber.stack_pointer);
#ifdef EMULATOR_ADDRESS
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void wait(Site site, State state, bool orders_memory = true) {
  void* object = memory.object(*self, state);
  if (state != State::kInWarp) ++self->turns[state == State::kInCluster];
  self->site = site;
  self->state = state;
  if (orders_memory) released(object);
  to_scheduler();
  if (orders_memory) acquired(object);
}

void make(Fiber& fiber, size_t i, unsigned rank, unsigned thread) {
  fiber = Fiber{};
  fiber.rank = rank;
  fiber.thread = thread;
  fiber.stack = memory.stack(i) + kPage;
  // The stack as emulator_swap leaves it: six registers, then the return address, with the alignment of a call.
  void** top = reinterpret_cast<void**>(memory.stack(i) + kStack);
  top[-1] = nullptr;
  top[-2] = reinterpret_cast<void*>(&entry);
  fiber.stack_pointer = std::fill_n(top - 8, 6, nullptr) - 6;
}

// Without memset, which ThreadSanitizer would count as the scheduler's access.
void poison(unsigned rank) {
  volatile uint64_t* words = reinterpret_cast<uint64_t*>(memory.shared(rank));
#ifdef EMULATOR_ADDRESS
  __asan_unpoison_memory_region(memory.shared(rank), kShared);
#endif
  for (size_t i = 0; i < (shared_bytes + 7) / 8; ++i) words[i] = ~uint64_t{0};
#ifdef EMULATOR_ADDRESS
  __asan_poison_memory_region(memory.shared(rank), kShared);
  for (const auto& [key, variable] : variables) {
    __asan_unpoison_memory_region(memory.shared(rank) + variable.offset, variable.bytes);
  }
#endif
}

// Behind the variables so far, with a gap for AddressSanitizer, and with no more than the requested alignment.
size_t place_variable(const void* key, size_t bytes, size_t alignment) {
  const auto found = variables.find(key);
  if (found != variables.end()) return found->second.offset;
  const size_t gap = 32, end = shared_bytes + gap, wide = 2 * std::max<size_t>(alignment, 4);
  const size_t offset = (end + wide - 1) / wide * wide + wide / 2;
  size_t used = bytes;
  for (const auto& [other, variable] : variables) used += variable.bytes;
  if (used - dynamic_bytes > kSharedWithoutOptIn) fail("more than 48 KB of static shared memory");
  if (used > kSharedMost) fail("more than 227 KB of static and dynamic shared memory");
  variables[key] = {offset, bytes};
  for (unsigned rank = 0; rank < cluster_size; ++rank) {
    char* start = memory.shared(rank);
#ifdef EMULATOR_ADDRESS
    __asan_unpoison_memory_region(start + offset, bytes);
#endif
    for (volatile char* byte = start + shared_bytes; byte < start + offset + bytes; ++byte) *byte = kPoison;
  }
  shared_bytes = offset + bytes;
  return offset;
}

template <typename Range>
void let_go_on(const Range& waiting) {
  for (Fiber* fiber : waiting) fiber->state = State::kReady;
}

// Whether all of `waiting` wait at one place; otherwise notes a failure.
bool at_one_place(const std::vector<Fiber*>& waiting, const char* group) {
  for (const Fiber* fiber : waiting) {
    const Site &here = fiber->site, &there = waiting[0]->site;
    if (here.line == there.line && !std::strcmp(here.file, there.file) && !std::strcmp(here.what, there.what)) continue;
    note_failure(std::string("threads of a ") + group + " wait at different places: " + name(*waiting[0]) + " at " +
                 place(there) + ", " + name(*fiber) + " at " + place(here));
    return false;
  }
  return true;
}

// Resumes each group of lanes whose mask names only lanes that wait or have exited.
void release_warp(Fiber* lanes, int count) {
  uint32_t waiting = 0, exited = count < kWarp ? ~0u << count : 0u;
  for (int i = 0; i < count; ++i) {
    if (lanes[i].state == State::kInWarp) waiting |= 1u << i;
    if (lanes[i].state == State::kDone) exited |= 1u << i;
  }
  for (int i = 0; i < count; ++i) {
    const uint32_t members = lanes[i].mask & ~exited;
    if (!(waiting >> i & 1) || (members & ~waiting)) continue;
    std::vector<Fiber*> group;
    std::array<uint64_t, kWarp> values;
    values.fill(~uint64_t{0});
    for (int j = 0; j < count; ++j) {
      if (!(members >> j & 1)) continue;
      group.push_back(&lanes[j]);
      values[j] = lanes[j].value;
      if (lanes[j].mask == lanes[i].mask) continue;
      char masks[64];
      std::snprintf(masks, sizeof masks, "%08x and %08x", lanes[i].mask, lanes[j].mask);
      return note_failure("lanes of a warp name different masks, " + std::string(masks) + ": " + name(lanes[i]) +
                          " at " + place(lanes[i].site) + ", " + name(lanes[j]) + " at " + place(lanes[j].site));
    }
    if (!at_one_place(group, "warp")) return;
    for (Fiber* fiber : group) fiber->received = values;
    let_go_on(group);
    waiting &= ~members;
  }
}

// Resumes `group` if all of its threads that have not exited wait in `state`.
void release_all(Fiber* first, size_t count, State state, const char* group) {
  std::vector<Fiber*> waiting;
  int held = 0;
  for (Fiber* fiber = first; fiber < first + count; ++fiber) {
    if (fiber->state == State::kDone) continue;
    if (fiber->state != state) return;
    waiting.push_back(fiber);
    held += fiber->predicate;
  }
  if (waiting.empty() || !at_one_place(waiting, group)) return;
  for (Fiber* fiber : waiting) fiber->count = held;
  let_go_on(waiting);
}

void describe_deadlock() {
  std::map<std::string, int> places;
  for (const Fiber& fiber : fibers) {
    if (fiber.state != State::kDone) ++places[place(fiber.site)];
  }
  std::string text = "deadlock:";
  for (const auto& [where, count] : places) text += " " + std::to_string(count) + " threads wait in " + where + ";";
  note_failure(text + " the others have exited");
}

// Runs a cluster from the first to the last instruction.
void run_cluster() {
  const size_t threads = static_cast<size_t>(blockDim.x) * blockDim.y * blockDim.z;
  memory.reserve(cluster_size, cluster_size * threads);
  fibers.resize(cluster_size * threads);
  for (unsigned rank = 0; rank < cluster_size; ++rank) {
    poison(rank);
    for (unsigned t = 0; t < threads; ++t) make(fibers[rank * threads + t], rank * threads + t, rank, t);
  }
  std::vector<Fiber*> ready;
#ifdef EMULATOR_THREAD
  // In random order, because ThreadSanitizer takes a fiber for an earlier one with the same number.
  for (Fiber& fiber : fibers) ready.push_back(&fiber);
  std::shuffle(ready.begin(), ready.end(), generator);
  for (Fiber* fiber : ready) fiber->tsan = __tsan_create_fiber(0);
#endif
  std::vector<bool> ended(cluster_size);
  while (!failed) {
    ready.clear();
    bool done = true;
    for (Fiber& fiber : fibers) {
      if (fiber.state == State::kReady) ready.push_back(&fiber);
      done &= fiber.state == State::kDone;
    }
    if (done) break;
    if (ready.empty()) describe_deadlock();
    std::shuffle(ready.begin(), ready.end(), generator);
    for (Fiber* fiber : ready) {
      if (!failed) resume(*fiber);
    }
    for (unsigned rank = 0; rank < cluster_size && !failed; ++rank) {
      Fiber* block = &fibers[rank * threads];
      for (size_t t = 0; t < threads && !failed; t += kWarp) {
        release_warp(block + t, static_cast<int>(std::min<size_t>(kWarp, threads - t)));
      }
      if (!failed) release_all(block, threads, State::kInBlock, "block");
      // The shared memory of a block that has exited is gone, and the others of its cluster must not read it any more.
      const auto exited = [](const Fiber& fiber) { return fiber.state == State::kDone; };
      if (!ended[rank] && std::all_of(block, block + threads, exited)) poison(rank), ended[rank] = true;
    }
    if (!failed) release_all(fibers.data(), fibers.size(), State::kInCluster, "cluster");
  }
#ifdef EMULATOR_THREAD
  for (Fiber& fiber : fibers) __tsan_destroy_fiber(fiber.tsan);
#endif
}

Error check(const Config& config, const Grants& grant) {
  const Dim3 &grid = config.grid, &block = config.block;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kThreadsMost || block.z > 64) return kInvalidConfiguration;
  if (uint64_t{grid.x} * grid.y * grid.z == 0 || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535) {
    return kInvalidConfiguration;
  }
  if (config.dynamic_shared > grant.dynamic_shared) return kInvalidValue;
  if (config.cluster == 0 || config.cluster > (grant.large_cluster ? kLargeCluster : kPortableCluster))
    return kInvalidCluster;
  return grid.x % config.cluster == 0 ? kSuccess : kInvalidConfiguration;
}

}  // namespace

Grants& grants(const void* kernel) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  return granted[kernel];
}

Error run(const Config& config, const void* kernel, const std::function<void()>& each_thread) {
  const std::lock_guard lock(one_at_a_time);
  if (const Error problem = check(config, grants(kernel))) return error = problem;
  gridDim = config.grid;
  blockDim = config.block;
  cluster_size = config.cluster;
  body = &each_thread;
  failed = false;
  variables.clear();
  shared_bytes = 0;
  dynamic_bytes = config.dynamic_shared;
  if (dynamic_bytes > 0) variables[&dynamic_bytes] = {kDynamicAlignment, dynamic_bytes};
  shared_bytes = dynamic_bytes > 0 ? kDynamicAlignment + dynamic_bytes : 0;
#ifdef EMULATOR_THREAD
  scheduler_tsan = __tsan_get_current_fiber();
#endif
  released(&launched);
  std::vector<unsigned> order(uint64_t{gridDim.x} * gridDim.y * gridDim.z / cluster_size);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<unsigned>(i * cluster_size);
  std::shuffle(order.begin(), order.end(), generator);
  for (size_t i = 0; i < order.size() && !failed; ++i) {
    first_block = order[i];
    run_cluster();
  }
  acquired(&finished);
  self = nullptr;
  if (!failed) return kSuccess;
  memory.unpoison();  // AddressSanitizer's marks on the stacks of fibers that will never return
  return error = kLaunchFailure;
}

Error last_error(bool clear) {
  const Error last = error;
  if (clear) error = kSuccess;
  return last;
}

const char* error_text(Error which) {
  switch (which) {
    case kSuccess:
      return "no error";
    case kInvalidValue:
      return "invalid argument";
    case kInvalidConfiguration:
      return "invalid configuration argument";
    case kInvalidCluster:
      return "cluster misconfiguration";
    case kLaunchFailure:
      return message.c_str();
  }
  return "unknown error";
}

void fail(const char* what) {
  if (!self) std::fprintf(stderr, "emulator: on the host: %s\n", what), std::abort();
  note_failure(name(*self) + ": " + what);
  to_scheduler(true);
  std::abort();  // nobody resumes a fiber after a failure
}

int wait_for_block(Site site, bool predicate) {
  self->predicate = predicate;
  wait(site, State::kInBlock);
  return self->count;
}

void wait_for_cluster(Site site) { wait(site, State::kInCluster); }

const uint64_t* exchange(Site site, uint32_t mask, uint64_t value, bool orders_memory) {
  if (!(mask >> self->thread % kWarp & 1)) fail((place(site) + ": the mask does not name the calling lane").c_str());
  self->mask = mask;
  self->value = value;
  wait(site, State::kInWarp, orders_memory);
  return self->received.data();
}

void* shared(const void* key, size_t bytes, size_t alignment) {
  return memory.shared(self->rank) + place_variable(key, bytes, alignment);
}

void* dynamic_shared(size_t alignment) {
  if (dynamic_bytes == 0) fail("dynamic shared memory is used, the launch asked for none");
  if (alignment > kDynamicAlignment) fail("dynamic shared memory is aligned to 16 bytes, the declaration wants more");
  return memory.shared(self->rank) + variables.at(&dynamic_bytes).offset;
}

void* shared_of(const void* pointer, unsigned rank) {
  const auto offset = static_cast<size_t>(static_cast<const char*>(pointer) - memory.shared(self->rank));
  if (offset >= shared_bytes) fail("map_shared_rank: the pointer is not to this block's shared memory");
  if (rank >= cluster_size) fail("map_shared_rank: the cluster has no such block");
  return memory.shared(rank) + offset;
}

}  // namespace emulator
