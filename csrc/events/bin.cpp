#include <string>

#include "events/decode.h"

namespace tmkt {
namespace {

constexpr int64_t kRecordBytes = 5;
constexpr uint8_t kMarkerY = 240;
constexpr int64_t kMarkerStep = int64_t{1} << 13;
constexpr int64_t kFieldEnd = int64_t{1} << 23;  // first time that does not fit into the 23-bit field
constexpr int64_t kTimeEnd = int64_t{1} << 32;   // readers with a 32-bit clock, such as tonic's, wrap here

void append(std::vector<uint8_t>& bytes, int64_t x, int64_t y, bool on, int64_t t) {
  bytes.push_back(static_cast<uint8_t>(x));
  bytes.push_back(static_cast<uint8_t>(y));
  bytes.push_back(static_cast<uint8_t>((on ? 0x80 : 0) | (t >> 16)));
  bytes.push_back(static_cast<uint8_t>(t >> 8));
  bytes.push_back(static_cast<uint8_t>(t));
}

}  // namespace

int64_t decode_bin(Bytes bytes, Event* out) {
  int64_t count = 0;
  int64_t offset = 0;
  int64_t last = 0;
  for (int64_t at = 0; at + kRecordBytes <= bytes.size; at += kRecordBytes) {
    const uint8_t* r = bytes.data + at;
    if (r[1] == kMarkerY) {
      offset += kMarkerStep;
      continue;
    }
    const int64_t t = offset + ((r[2] & 0x7f) << 16 | r[3] << 8 | r[4]);
    if (t < last) reject(at / kRecordBytes, backwards(last, t));
    if (out) out[count] = Event{r[0], r[1], t, static_cast<uint8_t>(r[2] >> 7)};
    ++count;
    last = t;
  }
  return count;
}

std::vector<uint8_t> encode_bin(const Event* events, int64_t n_events) {
  std::vector<uint8_t> bytes;
  bytes.reserve(n_events * kRecordBytes);
  int64_t offset = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < n_events; ++i) {
    const Event e = events[i];
    if (e.x < 0 || e.x > 255 || e.y < 0 || e.y > 255 || e.y == kMarkerY) {
      reject(i, "expected x and y in 0..255 and y other than 240, the format's time-stamp overflow marker; got x = " +
                    std::to_string(e.x) + ", y = " + std::to_string(e.y) + "; write_npz takes sensors of any size");
    }
    if (e.t < last || e.t >= kTimeEnd) {
      reject(i, "expected times from 0 to 2^32 - 1 us that never run backwards; got t = " + std::to_string(e.t) +
                    " after " + std::to_string(last));
    }
    for (; e.t - offset >= kFieldEnd; offset += kMarkerStep) append(bytes, 0, kMarkerY, false, 0);
    append(bytes, e.x, e.y, e.p != 0, e.t - offset);
    last = e.t;
  }
  return bytes;
}

}  // namespace tmkt
