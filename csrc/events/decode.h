// The 5-byte ATIS format of N-MNIST and N-Caltech101 (Orchard et al. 2015):
//   byte 0: x;  byte 1: y;  bytes 2-4, big endian: 1 bit polarity (1 = on), 23 bits time in microseconds.
// A record with y = 240 is no event: it adds 2^13 us to the time of all records after it.
#pragma once

#include <cstdint>
#include <vector>

#include "events/event.h"

namespace tmkt {

constexpr int64_t kRecordBytes = 5;

int64_t count_events(const uint8_t* records, int64_t n_records);

// Writes count_events() events to `out`; throws std::invalid_argument where time runs backwards.
void decode(const uint8_t* records, int64_t n_records, Event* out);

// The inverse; throws std::invalid_argument naming the first event that the format cannot hold.
std::vector<uint8_t> encode(const Event* events, int64_t n_events);

}  // namespace tmkt
