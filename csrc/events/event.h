// One event of an event camera, laid out as tmkt_kernels.events.EVENT_DTYPE (13 bytes, no padding).
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace tmkt {

#pragma pack(push, 1)
struct Event {
  int16_t x;
  int16_t y;
  int64_t t;  // microseconds
  uint8_t p;  // 0 off, else on; numpy's bool, because a C++ bool must not hold other bytes
};
#pragma pack(pop)
static_assert(sizeof(Event) == 13, "must match EVENT_DTYPE");

[[noreturn]] inline void reject(int64_t index, const std::string& problem) {
  throw std::invalid_argument("event " + std::to_string(index) + ": " + problem);
}

inline std::string backwards(int64_t from, int64_t to) {
  return "time runs backwards, from " + std::to_string(from) + " to " + std::to_string(to) + " us";
}

}  // namespace tmkt
