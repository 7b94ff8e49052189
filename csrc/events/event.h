// One event of an event camera, laid out as tmkt_kernels.events.EVENT_DTYPE (13 bytes, no padding).
#pragma once

#include <cstddef>
#include <cstdint>

namespace tmkt {

#pragma pack(push, 1)
struct Event {
  int16_t x;
  int16_t y;
  int64_t t;  // microseconds
  uint8_t p;  // 0 off, else on; numpy's bool, whose byte C++'s bool may not be trusted to hold
};
#pragma pack(pop)
static_assert(sizeof(Event) == 13, "must match EVENT_DTYPE");

}  // namespace tmkt
