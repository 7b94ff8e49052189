// Rows of the simulated camera. All steps run over a few rows at a time, whose state stays in the first-level cache.
// Compiled once per SIMD level.
#include "camera/camera_simd.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "camera/camera_pixel.h"
#include "common/cpu.h"
#include "common/vector_simd-inl.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

constexpr int64_t kBlockPixels = 1024;  // pixels whose state stays in the first-level cache
constexpr int64_t kMostFired = 256;

static_assert(std::endian::native == std::endian::little);  // words in pairs, masks in words

struct MultiplyLanes {
  TMKT_INLINE void operator()(Words a, uint32_t b, Words& high, Words& low) const {
    typedef uint64_t Pairs __attribute__((vector_size(4 * kLanes)));
    const Pairs even = multiply((Pairs)a, b), odd = multiply((Pairs)a >> 32, b);
    constexpr uint64_t kUpper = ~uint64_t{0} << 32;
    high = (Words)(even >> 32 | (odd & kUpper));
    low = (Words)((even & ~kUpper) | odd << 32);
  }

 private:
  // Products of the lower halves. GCC 12 multiplies all 64 bits.
  template <typename Pairs>
  static TMKT_INLINE Pairs multiply(Pairs a, uint32_t b) {
#if defined(__AVX512F__)
    return (Pairs)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi32(b));
#elif defined(__AVX2__)
    return (Pairs)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi32(b));
#elif defined(__SSE2__)
    return (Pairs)_mm_mul_epu32((__m128i)a, _mm_set1_epi32(b));
#else
    return (a & 0xffffffffu) * b;
#endif
  }
};

TMKT_INLINE unsigned lanes_of(Ints mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask);
#elif defined(__SSE2__)
  return _mm_movemask_ps((__m128)mask);
#else
  unsigned bits = 0;
  for (int j = 0; j < kLanes; ++j) bits |= (mask[j] & 1u) << j;
  return bits;
#endif
}

// Lanes in which the level crosses one of its bounds, or a bound is that of a blind pixel.
TMKT_INLINE unsigned crossings(Floats level, Floats high, Floats low) {
#if defined(__AVX512F__)
  const __mmask16 below = _mm512_cmp_ps_mask((__m512)level, (__m512)high, _CMP_LT_OQ);
  return static_cast<uint16_t>(~_mm512_mask_cmp_ps_mask(below, (__m512)level, (__m512)low, _CMP_GT_OQ));
#else
  return lanes_of((level >= high) | (level <= low));
#endif
}

TMKT_INLINE Floats gather(const float* values, Ints at) {
#if defined(__AVX512F__)
  return (Floats)_mm512_i32gather_ps((__m512i)at, values, 4);
#elif defined(__AVX2__)
  return (Floats)_mm256_i32gather_ps(values, (__m256i)at, 4);
#else
  Floats gathered;
  for (int j = 0; j < kLanes; ++j) gathered[j] = values[at[j]];
  return gathered;
#endif
}

TMKT_INLINE void scatter(Floats x, float* values, Ints at) {
#if defined(__AVX512F__)
  _mm512_i32scatter_ps(values, (__m512i)at, (__m512)x, 4);
#else
  for (int j = 0; j < kLanes; ++j) values[at[j]] = x[j];
#endif
}

// Neighbouring rows of one sensor, as one array. Each row has one more pixel, whose light the one before it needs and
// which never fires.
class Rows {
 public:
  Rows(const CameraScene& scene, const CameraSample& sample, int64_t first, int64_t rows, EventSink& sink)
      : scene_(scene),
        sample_(sample),
        first_(first),
        rows_(rows),
        pitch_(scene.width + 1),
        vectors_((rows * pitch_ + kLanes - 1) / kLanes),
        floats_(kArrays * (vectors_ + 1)),
        places_(vectors_ * kLanes, Place{-1, -1}),
        noise_(vectors_),
        masks_(vectors_ + sizeof(uint64_t)),
        active_((vectors_ + 1) * kLanes),
        sink_(sink) {
    for (int64_t row = 0; row < rows; ++row) {
      Place* places = places_.data() + row * pitch_;
      for (int64_t x = 0; x < scene.width; ++x) {
        places[x] = {static_cast<int16_t>(x), static_cast<int16_t>(first + row)};
      }
    }
  }

  void simulate() {
    look_between(0);
    for (int64_t k = 0; k < vectors_; ++k) start(k);
    start_filler();
    for (int32_t step = 1; step < sample_.n_steps; ++step) {
      if (!sample_.rests(step)) look(step);
      expose(step);
      fire(step, list_active());
      sink_references(step);
    }
    for (int64_t k = 0; k < vectors_; ++k) noise(k);
    drain();
  }

 private:
  struct Place {
    int16_t x, y;  // -1 for none
  };
  typedef std::conditional_t<kLanes == 16, uint16_t, uint8_t> Mask;

  // Arrays of vectors, one after the other. Each has one vector more: `seen` reads one pixel ahead, and `fire` fills
  // its last vector up with a pixel that never fires.
  enum Array { kLevel, kNextLevel, kHigh, kLow, kBlind, kOn, kOff, kLight, kArrays };
  Floats* array(int64_t which) { return &floats_[which * (vectors_ + 1)]; }
  float* flat(int64_t which) { return reinterpret_cast<float*>(array(which)); }
  // The level before a step, and after it, where `look` leaves the light from which `expose` makes it.
  int64_t before(int32_t step) const { return step % 2 ? kLevel : kNextLevel; }
  int64_t after(int32_t step) const { return step % 2 ? kNextLevel : kLevel; }

  // Logarithm of a step's light.
  void look(int32_t step) {
    look_between(step);
    const Floats* const between = array(after(step));
    const float right = sample_.shares[step].right;
    for (int64_t k = 0; k < vectors_; ++k) array(kLight)[k] = log2_of(seen(between, k, right));
  }

  // Light of a step between neighbouring rows. A row's vector is loaded once, for the row above it and the one below.
  void look_between(int32_t step) {
    const float down = sample_.shares[step].down;
    const float* view = sample_.display + sample_.times[step].corner + first_ * scene_.display_width;
    const auto mix = [&](auto access, int64_t x) {
      const float* source = view + x;
      float* target = flat(after(step)) + x;
      Floats upper = access.load(source);
      for (int64_t row = 0; row < rows_; ++row, target += pitch_) {
        source += scene_.display_width;
        const Floats lower = access.load(source);
        store(access, upper + down * (lower - upper), target);
        upper = lower;
      }
    };
    write(Floats{} + 1.0f, flat(after(step)) + rows_ * pitch_);  // the rest of the last vector needs a logarithm too
    int64_t x = 0;
    for (; x + kLanes <= pitch_; x += kLanes) mix(WholeVector{}, x);
    if (x < pitch_) mix(PartOfVector{pitch_ - x}, x);
  }

  // Light of a step at the pixels of vector k, from that between rows.
  static Floats seen(const Floats* between, int64_t k, float share_right) {
    const float* pixels = reinterpret_cast<const float*>(between + k);
    const Floats left = load(pixels), right = load(pixels + 1);
    return left + share_right * (right - left);
  }

  void start(int64_t k) {
    CameraPixel<Floats> pixel;
    Ints number;
    for (int j = 0; j < kLanes; ++j) {
      const Place place = places_[k * kLanes + j];
      number[j] = place.x < 0 ? -1 : static_cast<int32_t>(place.y * scene_.width + place.x);
    }
    pixel.start(MultiplyLanes{}, sample_.sensor, sample_.seed, (Words)number,
                seen(array(after(0)), k, sample_.shares[0].right));
    array(kHigh)[k] = number < 0 ? __builtin_inff() : pixel.high;
    array(kLow)[k] = number < 0 ? -__builtin_inff() : pixel.low;
    array(kBlind)[k] = pixel.blind;
    array(kOn)[k] = pixel.on;
    array(kOff)[k] = pixel.off;
    array(after(0))[k] = array(kLight)[k] = pixel.level;  // the light in case the image rests at first
    noise_[k] = number < 0 ? kNever : pixel.noise_at;
  }

  void start_filler() {
    array(kHigh)[vectors_] = Floats{} + __builtin_inff();
    array(kLow)[vectors_] = Floats{} - __builtin_inff();
    array(kBlind)[vectors_] = Floats{} - 1.0f;
  }

  // Moves the levels through a step, and marks the pixels for `fire`.
  void expose(int32_t step) {
    const float follow = sample_.shares[step].follow, sunk = sunk_in(step);
    const Floats *const befores = array(before(step)), *const lights = array(kLight);
    const Floats *const highs = array(kHigh), *const lows = array(kLow);
    Floats* const afters = array(after(step));
    for (int64_t k = 0; k < vectors_; ++k) {
      const Floats after = befores[k] + follow * (lights[k] - befores[k]);
      afters[k] = after;
      masks_[k] = crossings(after + sunk, highs[k], lows[k]);
    }
  }

  float sunk_in(int32_t step) const {
    return sample_.sensor.leak * static_cast<float>(sample_.times[step].duration_us);
  }

  int64_t list_active() {
    constexpr int64_t kAtOnce = sizeof(uint64_t) / sizeof(Mask);
    int64_t n = 0;
    for (int64_t k = 0; k < vectors_; k += kAtOnce) {
      uint64_t bits = read<uint64_t>(&masks_[k]);
      if (bits == 0) continue;
      // Four at a time, beyond the last one too, because each end of a loop is hard to predict.
      const int64_t end = n + __builtin_popcountll(bits);
      for (; n < end; n += 4) {
        for (int i = 0; i < 4; ++i, bits &= bits - 1) {
          const int bit = __builtin_ctzll(bits | uint64_t{1} << 63);
          active_[n + i] = (k + bit / (8 * sizeof(Mask))) * kLanes + bit % (8 * sizeof(Mask));
        }
      }
      n = end;
    }
    return n;
  }

  // A blind pixel has its crossings at infinity, so that it comes here in every step until it sees again.
  void fire(int32_t step, int64_t active) {
    const StepTimes times = sample_.times[step];
    const float us = static_cast<float>(times.duration_us), refractory_us = sample_.sensor.refractory_us;
    const float sunk = sunk_in(step);
    write(Ints{} + static_cast<int32_t>(vectors_ * kLanes), &active_[active]);
    for (int64_t i = 0; i < active; i += kLanes) {
      const Ints at = read<Ints>(&active_[i]);
      const Floats before = gather(flat(this->before(step)), at), end = gather(flat(after(step)), at) + sunk;
      CameraPixel<Floats> pixel{.level{},
                                .high = gather(flat(kHigh), at),
                                .low = gather(flat(kLow), at),
                                .blind = gather(flat(kBlind), at),
                                .on = gather(flat(kOn), at),
                                .off = gather(flat(kOff), at),
                                .noise_at{}};
      const auto any = [](Ints mask) { return lanes_of(mask) != 0; };
      const auto emit = [&](Ints fires, Ints up, Floats time) {
        Ints whole = __builtin_convertvector(time, Ints);
        whole = times.begin_us + (whole < times.duration_us ? whole : times.duration_us - 1);
        if (fired_ > kMostFired - kLanes) drain();
        for (unsigned lanes = lanes_of(fires), ups = lanes_of(up); lanes; lanes &= lanes - 1) {
          const int j = __builtin_ctz(lanes);
          add(at[j], whole[j], ups >> j & 1);
        }
      };
      pixel.fire(before, end, us, refractory_us, any, emit);
      const Ints still = pixel.blind >= 0.0f;
      scatter(still ? pixel.blind - us : pixel.blind, flat(kBlind), at);
      scatter(still ? -__builtin_inff() : pixel.high, flat(kHigh), at);
      scatter(still ? __builtin_inff() : pixel.low, flat(kLow), at);
    }
  }

  void sink_references(int32_t step) {
    const float sunk = sunk_in(step);
    if (sunk == 0.0f) return;
    for (int64_t k = 0; k < vectors_; ++k) {
      array(kHigh)[k] -= sunk;
      array(kLow)[k] -= sunk;
    }
  }

  void noise(int64_t k) {
    for (unsigned lanes = lanes_of(noise_[k] < sample_.duration_us()); lanes; lanes &= lanes - 1) {
      const int64_t at = k * kLanes + __builtin_ctz(lanes);
      const Place place = places_[at];
      add_noise(sample_, scene_.display_width, scene_.width, place.y * scene_.width + place.x, noise_[k][at % kLanes],
                [&](int32_t time, bool on) {
                  if (fired_ == kMostFired) drain();
                  add(at, time, on);
                });
    }
  }

  void add(int64_t at, int32_t time, bool on) { events_[fired_++] = {places_[at].x, places_[at].y, time, on}; }

  void drain() {
    sink_.take(events_, fired_);
    fired_ = 0;
  }

  const CameraScene& scene_;
  const CameraSample& sample_;
  int64_t first_, rows_, pitch_, vectors_;
  std::vector<Floats> floats_;
  std::vector<Place> places_;
  std::vector<Ints> noise_;      // time of the first background event
  std::vector<Mask> masks_;      // pixels that may fire in a step, a bit each
  std::vector<int32_t> active_;  // the same as a list
  EventSink& sink_;
  int64_t fired_ = 0;
  FiredEvent events_[kMostFired];
};

}  // namespace

void camera_rows(const CameraScene& scene, const CameraSample& sample, int64_t first, int64_t last, EventSink& sink) {
  const int64_t at_once = std::max<int64_t>(1, kBlockPixels / (scene.width + 1));
  for (int64_t row = first; row < last; row += at_once) {
    Rows(scene, sample, row, std::min(at_once, last - row), sink).simulate();
  }
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
