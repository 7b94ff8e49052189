// Decoders of recorded formats, from the bytes after the header to events in order of time. Layouts, as published:
//   bin     N-MNIST, N-Caltech101 (Orchard et al. 2015), 5 bytes per event
//   dat     Prophesee DAT, 8 bytes per event
//   evt2, evt21, evt3  Prophesee's words of 32, 64 and 16 bits
//   aedat2, aedat3     iniVation's AEDAT 2.0 (jAER) and 3.1 (cAER)
// Whatever `data` holds, a decoder reads nothing outside it, in linear time and memory. It throws std::invalid_argument
// for bytes that violate the layout. Steps back in time: see Recorder.
#pragma once

#include <cstdint>
#include <vector>

#include "events/event.h"

namespace tmkt {

struct Bytes {
  const uint8_t* data;
  int64_t size;  // whole records, except for aedat3, which checks this itself
};

// Layout of the addresses of AEDAT 2.0, which its records do not state.
struct Aedat2Camera {
  int64_t width;
  int64_t height;
  bool davis;  // DAVIS: 32 bits, origin at the bottom right; else DVS128: 16 bits, x from right to left
};

// Each decoder writes its events to `out` and returns their number; if `out` is null it only counts.

// A record is x, y, 1 bit of polarity and 23 bits of time in us, big endian. A record with y = 240 is no event, but
// adds 2^13 us to the time of all that follow. Time never steps back.
int64_t decode_bin(Bytes bytes, Event* out);

// A record is 32 bits of time in us, then, from the lowest bit on, 14 of x, 14 of y and one of polarity; little endian.
int64_t decode_dat(Bytes bytes, Event* out);

// Events before the first time word are dropped, because their time is unknown.
int64_t decode_evt2(Bytes bytes, Event* out);
int64_t decode_evt21(Bytes bytes, bool high_half_first, Event* out);
int64_t decode_evt3(Bytes bytes, Event* out);

int64_t decode_aedat2(Bytes bytes, const Aedat2Camera& camera, Event* out);
int64_t decode_aedat3(Bytes bytes, Event* out);

// The inverse of decode_bin; throws std::invalid_argument naming the first event that the format cannot hold.
std::vector<uint8_t> encode_bin(const Event* events, int64_t n_events);

}  // namespace tmkt
