#include <stdexcept>
#include <string>

#include "events/decode.h"
#include "events/recorder.h"

namespace tmkt {
namespace {

constexpr int64_t kAedat2Bytes = 8;

// Header of an AEDAT 3.1 packet: type and source of 2 bytes each, then six numbers of 4 bytes, little endian.
struct Packet {
  static constexpr int64_t kBytes = 28;
  static constexpr int16_t kPolarity = 1;
  static constexpr int32_t kEventBytes = 8;  // size of a polarity event: address, time

  int16_t type, source;
  int32_t event_bytes, time_at, overflows, capacity, number;

  explicit Packet(const uint8_t* b)
      : type(little_endian<uint16_t>(b)),
        source(little_endian<uint16_t>(b + 2)),
        event_bytes(little_endian<uint32_t>(b + 4)),
        time_at(little_endian<uint32_t>(b + 8)),
        overflows(little_endian<uint32_t>(b + 12)),
        capacity(little_endian<uint32_t>(b + 16)),
        number(little_endian<uint32_t>(b + 20)) {}

  bool holds_changes() const { return type == kPolarity; }
  int64_t body() const { return int64_t{capacity} * event_bytes; }
  bool possible() const {
    return event_bytes > 0 && overflows >= 0 && 0 <= number && number <= capacity &&
           (!holds_changes() || (event_bytes == kEventBytes && time_at == 4));
  }
};

[[noreturn]] void reject_packet(int64_t index, const std::string& problem) {
  throw std::invalid_argument("packet " + std::to_string(index) + ": " + problem);
}

template <class Sink>
void read_aedat3(Bytes bytes, Sink& events) {
  int32_t source = -1;
  int64_t index = 0;
  for (int64_t at = 0; at < bytes.size; ++index) {
    if (bytes.size - at < Packet::kBytes) reject_packet(index, "the file ends within it");
    const Packet packet(bytes.data + at);
    at += Packet::kBytes;
    if (!packet.possible()) reject_packet(index, "its head holds numbers that no packet can have");
    if (packet.body() > bytes.size - at) reject_packet(index, "the file ends within it");
    if (packet.holds_changes()) {
      if (source >= 0 && source != packet.source) reject_packet(index, "comes from a second camera");
      source = packet.source;
      for (int64_t i = 0; i < packet.number; ++i) {
        const uint8_t* event = bytes.data + at + i * Packet::kEventBytes;
        const uint32_t address = little_endian<uint32_t>(event), time = little_endian<uint32_t>(event + 4);
        if (!(address & 1)) continue;  // invalidated by a filter
        if (time >> 31) reject_packet(index, "holds a negative time");
        events.add(address >> 17, address >> 2 & 0x7fff, int64_t{packet.overflows} << 31 | time, address >> 1 & 1);
      }
    }
    at += packet.body();
  }
}

template <class Sink>
void read_aedat2(Bytes bytes, const Aedat2Camera& camera, Sink& events) {
  Counter counter(32, 1);
  int64_t index = 0;
  for (int64_t at = 0; at + kAedat2Bytes <= bytes.size; at += kAedat2Bytes, ++index) {
    const uint32_t address = big_endian(bytes.data + at);
    const int64_t time = counter(static_cast<int32_t>(big_endian(bytes.data + at + 4)));
    int64_t x, y;
    bool on;
    if (camera.davis) {
      if (address >> 31 || address >> 10 & 1) continue;  // frame or inertial sensor; external event
      x = camera.width - 1 - (address >> 12 & 0x3ff);
      y = camera.height - 1 - (address >> 22 & 0x1ff);
      on = address >> 11 & 1;
    } else {
      if (address >> 16) reject(index, "its address has more than the 16 bits of a DVS128");
      if (address >> 15) continue;  // external event
      x = camera.width - 1 - (address >> 1 & 0x7f);
      y = address >> 8 & 0x7f;
      on = !(address & 1);
    }
    if (x < 0 || x >= camera.width || y < 0) {
      reject(index, "lies beyond the sensor of " + std::to_string(camera.width) + " x " +
                        std::to_string(camera.height) + " that the header names");
    }
    events.add(x, y, time, on);
  }
}

}  // namespace

int64_t decode_aedat2(Bytes bytes, const Aedat2Camera& camera, Event* out) {
  return record(out, [&](auto& events) { read_aedat2(bytes, camera, events); });
}

int64_t decode_aedat3(Bytes bytes, Event* out) {
  return record(out, [&](auto& events) { read_aedat3(bytes, events); });
}

}  // namespace tmkt
