#include "events/decode.h"
#include "events/recorder.h"

namespace tmkt {
namespace {

// Type of a word, its highest 4 bits. All other types are triggers, vendors' own or reserved, and hold no events.
enum Evt2Type : uint32_t { kEvt2Off = 0x0, kEvt2On = 0x1, kEvt2TimeHigh = 0x8 };
enum Evt3Type : uint32_t {
  kEvt3Y = 0x0,
  kEvt3OtherY = 0x1,  // exposure in older sensors; the x words after it are no events
  kEvt3X = 0x2,
  kEvt3BaseX = 0x3,
  kEvt3Vector12 = 0x4,
  kEvt3Vector8 = 0x5,
  kEvt3TimeLow = 0x6,
  kEvt3TimeHigh = 0x8,
};
constexpr int64_t kEvt3Width = 2048;  // range of an 11-bit x

template <class Word, class Use>
void for_each_word(Bytes bytes, Use use) {
  constexpr int64_t width = sizeof(Word);
  for (int64_t at = 0; at + width <= bytes.size; at += width) use(little_endian<Word>(bytes.data + at));
}

// Time of EVT2 and EVT2.1: 28 bits in a word of its own, and 6 more bits in each event.
class Evt2Clock {
 public:
  void set_high(uint32_t word) {
    high_ = counter_(word & 0xfffffff) * 64;
    known_ = true;
  }
  bool known() const { return known_; }
  int64_t at(uint32_t word) const { return high_ + (word >> 22 & 0x3f); }

 private:
  Counter counter_{28, 64};
  int64_t high_ = 0;
  bool known_ = false;
};

template <class Sink>
void read_evt3(Bytes bytes, Sink& events) {
  Counter counter(12, 4096);
  int64_t high = -1, base = 0, low = 0;
  int64_t x = -1, y = -1;  // -1: not yet known
  bool vector_on = false;
  const auto add_vector = [&](uint32_t valid, int width) {
    if (x < 0) return;
    for (; valid && high >= 0 && y >= 0; valid &= valid - 1) {
      const int64_t at = x + __builtin_ctz(valid);
      if (at >= kEvt3Width) {
        throw std::invalid_argument("a vector of pixels runs past x = 2047, where the format ends");
      }
      events.add(at, y, base + low, vector_on);
    }
    x = std::min(x + width, kEvt3Width);
  };
  for_each_word<uint16_t>(bytes, [&](uint32_t word) {
    switch (word >> 12) {
      case kEvt3X:
        if (high >= 0 && y >= 0) events.add(word & 0x7ff, y, base + low, word >> 11 & 1);
        break;
      case kEvt3Y:
        y = word & 0x7ff;
        break;
      case kEvt3OtherY:
        y = -1;
        break;
      case kEvt3BaseX:
        x = word & 0x7ff;
        vector_on = word >> 11 & 1;
        break;
      case kEvt3Vector12:
        add_vector(word & 0xfff, 12);
        break;
      case kEvt3Vector8:
        add_vector(word & 0xff, 8);
        break;
      case kEvt3TimeLow:
        low = word & 0xfff;
        break;
      case kEvt3TimeHigh:
        // High words are repeated now and then. A new one precedes its low bits, which begin at 0.
        if (high != (word & 0xfff)) low = 0;
        high = word & 0xfff;
        base = counter(high) * 4096;
        break;
      default:
        break;
    }
  });
}

}  // namespace

int64_t decode_dat(Bytes bytes, Event* out) {
  return record(out, [&](auto& events) {
    Counter time(32, 1);
    for_each_word<uint64_t>(bytes, [&](uint64_t word) {
      events.add(word >> 32 & 0x3fff, word >> 46 & 0x3fff, time(word & 0xffffffff), word >> 60 & 1);
    });
  });
}

int64_t decode_evt2(Bytes bytes, Event* out) {
  return record(out, [&](auto& events) {
    Evt2Clock clock;
    for_each_word<uint32_t>(bytes, [&](uint32_t word) {
      const uint32_t type = word >> 28;
      if (type == kEvt2TimeHigh) clock.set_high(word);
      if (type <= kEvt2On && clock.known()) {
        events.add(word >> 11 & 0x7ff, word & 0x7ff, clock.at(word), type == kEvt2On);
      }
    });
  });
}

int64_t decode_evt21(Bytes bytes, bool high_half_first, Event* out) {
  return record(out, [&](auto& events) {
    Evt2Clock clock;
    for_each_word<uint64_t>(bytes, [&](uint64_t word) {
      // A word holds the x of 32 pixels as in EVT2, and a bit for each of them.
      const auto first = static_cast<uint32_t>(word), second = static_cast<uint32_t>(word >> 32);
      const uint32_t head = high_half_first ? first : second;
      const uint32_t type = head >> 28;
      if (type == kEvt2TimeHigh) clock.set_high(head);
      if (type > kEvt2On || !clock.known()) return;
      for (uint32_t valid = high_half_first ? second : first; valid; valid &= valid - 1) {
        events.add((head >> 11 & 0x7ff) + __builtin_ctz(valid), head & 0x7ff, clock.at(head), type == kEvt2On);
      }
    });
  });
}

int64_t decode_evt3(Bytes bytes, Event* out) {
  return record(out, [&](auto& events) { read_evt3(bytes, events); });
}

}  // namespace tmkt
