// Every decoder of csrc/events on random and damaged records, for AddressSanitizer and UndefinedBehaviorSanitizer:
// `make sanitize`. Decoded events must be in order of time, and as many as the decoder counted.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "events/decode.h"

using namespace tmkt;

namespace {

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "fuzz: %s\n", what.c_str());
  std::exit(1);
}

using Data = std::vector<uint8_t>;
using Random = std::mt19937_64;

struct Format {
  const char* name;
  std::function<int64_t(Bytes, Event*)> decode;
  std::function<Data(Random&)> make;  // records, of which most are valid
};

int64_t below(Random& random, int64_t end) { return static_cast<int64_t>(random() % static_cast<uint64_t>(end)); }

template <class Word>
void put(Data& data, Word word) {
  for (size_t i = 0; i < sizeof word; ++i) data.push_back(static_cast<uint8_t>(word >> 8 * i));
}

void put_big(Data& data, uint32_t word) {
  for (int shift = 24; shift >= 0; shift -= 8) data.push_back(static_cast<uint8_t>(word >> shift));
}

// Words of the types that `types` lists, with time that advances, and sometimes steps back.
template <class Word>
Data words(Random& random, const std::vector<uint64_t>& types, uint64_t time_type, int time_shift) {
  constexpr int bits = 8 * sizeof(Word);
  Data data;
  uint64_t time = random();
  for (int64_t n = below(random, 600); n > 0; --n) {
    const uint64_t type = types[below(random, types.size())];
    uint64_t content = random() >> 8;
    if (type == time_type) content = (time += below(random, 3)) << time_shift;
    put(data, static_cast<Word>(type << (bits - 4) | (content & ((uint64_t{1} << (bits - 4)) - 1))));
  }
  return data;
}

Data dat(Random& random) {
  Data data;
  uint32_t time = static_cast<uint32_t>(random());
  for (int64_t n = below(random, 300); n > 0; --n) {
    put(data, time += below(random, 1000) - 100);
    put(data, static_cast<uint32_t>(random()));
  }
  return data;
}

Data bin(Random& random) {
  Data data;
  uint32_t time = 0;
  for (int64_t n = below(random, 300); n > 0; --n) {
    time = (time + below(random, 200)) & 0x7fffff;
    put(data, static_cast<uint16_t>(random()));
    for (const int shift : {16, 8, 0}) data.push_back(static_cast<uint8_t>(time >> shift));
  }
  return data;
}

Data aedat2(Random& random, uint32_t mask) {
  Data data;
  uint32_t time = static_cast<uint32_t>(random());
  for (int64_t n = below(random, 300); n > 0; --n) {
    put_big(data, static_cast<uint32_t>(random()) & mask);
    put_big(data, time += below(random, 1000) - 100);
  }
  return data;
}

Data aedat3(Random& random) {
  Data data;
  uint32_t time = static_cast<uint32_t>(random()) >> 1;
  for (int64_t packets = below(random, 6); packets > 0; --packets) {
    const bool ours = below(random, 3) > 0;
    const uint32_t number = below(random, 50), capacity = number + below(random, 3);
    put(data, static_cast<uint32_t>(ours ? 1 : 2));
    for (const uint32_t field : {8u, 4u, 0u, capacity, number, number}) put(data, field);
    for (uint32_t i = 0; i < capacity; ++i) {
      put(data, static_cast<uint32_t>(random()));
      put(data, time = (time + below(random, 100)) & 0x7fffffff);
    }
  }
  return data;
}

Data noise(Random& random) {
  Data data(below(random, 2000));
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
  return data;
}

void damage(Data& data, Random& random) {
  for (int64_t n = below(random, 4); n > 0 && !data.empty(); --n) {
    const int64_t at = below(random, data.size());
    switch (below(random, 4)) {
      case 0:
        data[at] ^= 1 << below(random, 8);
        break;
      case 1:
        data.resize(at);
        break;
      case 2:
        data.insert(data.begin() + at, below(random, 9), static_cast<uint8_t>(random()));
        break;
      default:
        data[at] = below(random, 2) ? 0xff : 0x80;
    }
  }
}

// Return the number of events, or -1 for refused records. Both buffers have exactly their size.
int64_t decode(const Format& format, const Data& data, std::vector<Event>& events) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[data.size()]);
  if (!data.empty()) std::memcpy(copy.get(), data.data(), data.size());
  const Bytes bytes{copy.get(), static_cast<int64_t>(data.size())};
  try {
    const int64_t count = format.decode(bytes, nullptr);
    events.assign(count, Event{});
    events.shrink_to_fit();
    std::vector<Event> none(1);
    const int64_t found = format.decode(bytes, count > 0 ? events.data() : none.data());
    require(found == count, std::string(format.name) + ": counted otherwise than decoded");
    return found;
  } catch (const std::invalid_argument&) {
    return -1;
  }
}

bool in_order(const std::vector<Event>& events) {
  for (size_t i = 1; i < events.size(); ++i) {
    if (events[i - 1].t > events[i].t) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t files = argc > 1 ? std::atoll(argv[1]) : 20000;
  const std::vector<uint64_t> evt2{0, 0, 1, 1, 8, 8, 0xa, 0xe, 0xf, 7},
      evt3{0, 1, 2, 2, 3, 4, 4, 5, 6, 8, 8, 7, 0xa, 0xf};
  const std::vector<Format> formats = {
      {"bin", decode_bin, bin},
      {"dat", decode_dat, dat},
      {"evt2", decode_evt2, [&](Random& r) { return words<uint32_t>(r, evt2, 8, 0); }},
      {"evt21", [](Bytes b, Event* out) { return decode_evt21(b, false, out); },
       [&](Random& r) { return words<uint64_t>(r, evt2, 8, 32); }},
      {"evt21, high half first", [](Bytes b, Event* out) { return decode_evt21(b, true, out); },
       [&](Random& r) { return words<uint32_t>(r, evt2, 8, 0); }},
      {"evt3", decode_evt3, [&](Random& r) { return words<uint16_t>(r, evt3, 8, 0); }},
      {"aedat2, DVS128", [](Bytes b, Event* out) { return decode_aedat2(b, {128, 128, false}, out); },
       [](Random& r) { return aedat2(r, 0xffff); }},
      {"aedat2, DAVIS", [](Bytes b, Event* out) { return decode_aedat2(b, {240, 180, true}, out); },
       [](Random& r) { return aedat2(r, 0x9fc7ffff); }},
      {"aedat3", decode_aedat3, aedat3},
  };
  std::vector<Event> events;
  for (const Format& format : formats) {
    Random random(7);
    int64_t decoded = 0;
    for (int64_t k = 0; k < files; ++k) {
      Data data = k % 5 == 4 ? noise(random) : format.make(random);
      if (k % 2) damage(data, random);
      const int64_t count = decode(format, data, events);
      decoded += count > 0;
      require(count < 0 || in_order(events), std::string(format.name) + ": not in order of time");
    }
    require(decoded > files / 20, std::string(format.name) + ": hardly a file was decoded");
    std::printf("fuzz: %s: %lld of %lld files decoded, the others refused\n", format.name,
                static_cast<long long>(decoded), static_cast<long long>(files));
  }
  // Decoding time grows with the bytes, however often the recorded time steps back.
  Data steps;
  for (uint32_t i = 0; i < 1'000'000; ++i) {
    put(steps, i / 200 + (i % 2 ? 0u : 9'000u));
    put(steps, i);
  }
  const auto begin = std::chrono::steady_clock::now();
  require(decode(formats[1], steps, events) == 1'000'000, "steps back: not all decoded");
  require(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20), "steps back: took more than 20 s");
  return 0;
}
