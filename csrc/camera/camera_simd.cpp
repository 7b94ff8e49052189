// Rows of the simulated camera. All steps run over a few rows at a time, whose state stays in the first-level cache.
// Compiled once per SIMD level.
#include "camera/camera_simd.h"

#include <algorithm>
#include <vector>

#include "camera/camera_pixel.h"
#include "common/cpu.h"
#include "common/vector_simd-inl.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

constexpr int64_t kMostFired = 256;

struct MultiplyLanes {
  typedef uint64_t Wide __attribute__((vector_size(8 * kLanes)));

  TMKT_INLINE void operator()(Words a, uint32_t b, Words& high, Words& low) const {
    const Wide product = __builtin_convertvector(a, Wide) * b;
    high = __builtin_convertvector(product >> 32, Words);
    low = a * b;
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

TMKT_INLINE bool any_crosses(Floats level, Floats high, Floats low) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)level, (__m512)high, _CMP_GE_OQ) |
         _mm512_cmp_ps_mask((__m512)level, (__m512)low, _CMP_LE_OQ);
#else
  return lanes_of((level >= high) | (level <= low));
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
        floats_(kArrays * vectors_ + 1),
        pixel_(vectors_, Ints{} - 1),
        noise_(vectors_),
        sink_(sink) {
    for (int64_t row = 0; row < rows; ++row) {
      int32_t* pixels = reinterpret_cast<int32_t*>(pixel_.data()) + row * pitch_;
      for (int64_t x = 0; x < scene.width; ++x) pixels[x] = static_cast<int32_t>((first + row) * scene.width + x);
    }
  }

  void simulate() {
    look(0);
    for (int64_t k = 0; k < vectors_; ++k) start(k);
    for (int32_t step = 1; step < sample_.n_steps; ++step) {
      if (!sample_.rests(step)) look(step);
      expose(step);
    }
    for (int64_t k = 0; k < vectors_; ++k) noise(k);
    drain();
  }

 private:
  // Arrays of vectors, one after the other; the last has one vector more, because `look` reads one pixel ahead.
  static constexpr int64_t kArrays = 8;
  Floats& level(int64_t k) { return floats_[k]; }
  Floats& high(int64_t k) { return floats_[vectors_ + k]; }
  Floats& low(int64_t k) { return floats_[2 * vectors_ + k]; }
  Floats& blind(int64_t k) { return floats_[3 * vectors_ + k]; }
  Floats& on(int64_t k) { return floats_[4 * vectors_ + k]; }
  Floats& off(int64_t k) { return floats_[5 * vectors_ + k]; }
  Floats& light(int64_t k) { return floats_[6 * vectors_ + k]; }  // its logarithm, from the second step on
  float* between() { return reinterpret_cast<float*>(&floats_[7 * vectors_]); }  // light between two rows

  // Light of a step at all pixels, or its logarithm from step 1 on.
  void look(int32_t step) {
    const StepShares share = sample_.shares[step];
    for (int64_t row = 0; row < rows_; ++row) {
      const float* upper = sample_.display + sample_.times[step].corner + (first_ + row) * scene_.display_width;
      const float* lower = upper + scene_.display_width;
      float* target = between() + row * pitch_;
      const auto mix = [&](auto access, int64_t x) {
        const Floats u = access.load(upper + x);
        store(access, u + share.down * (access.load(lower + x) - u), target + x);
      };
      int64_t x = 0;
      for (; x + kLanes <= pitch_; x += kLanes) mix(WholeVector{}, x);
      if (x < pitch_) mix(PartOfVector{pitch_ - x}, x);
    }
    for (int64_t k = 0; k < vectors_; ++k) {
      const Floats left = load(between() + k * kLanes), right = load(between() + k * kLanes + 1);
      const Floats seen = left + share.right * (right - left);
      light(k) = step == 0 ? seen : log2_of(seen);
    }
  }

  void start(int64_t k) {
    CameraPixel<Floats> pixel;
    pixel.start(MultiplyLanes{}, sample_.sensor, sample_.seed, (Words)pixel_[k], light(k));
    light(k) = pixel.level;  // in case the image rests at first
    pixel.high = pixel_[k] < 0 ? __builtin_inff() : pixel.high;
    pixel.low = pixel_[k] < 0 ? -__builtin_inff() : pixel.low;
    store_state(k, pixel);
    on(k) = pixel.on;
    off(k) = pixel.off;
    level(k) = pixel.level;
    noise_[k] = pixel.noise_at;
  }

  void store_state(int64_t k, const CameraPixel<Floats>& pixel) {
    high(k) = pixel.high;
    low(k) = pixel.low;
    blind(k) = pixel.blind;
  }

  void expose(int32_t step) {
    const float us = static_cast<float>(sample_.times[step].duration_us);
    const float follow = sample_.shares[step].follow, sunk = sample_.sensor.leak * us;
    sunk == 0.0f ? expose<false>(step, follow, sunk) : expose<true>(step, follow, sunk);
  }

  template <bool kLeak>
  void expose(int32_t step, float follow, float sunk) {
    Floats *const levels = &level(0), *const highs = &high(0), *const lows = &low(0);
    const Floats* const lights = &light(0);
    for (int64_t k = 0; k < vectors_; ++k) {
      const Floats before = levels[k];
      const Floats after = before + follow * (lights[k] - before);
      const Floats end = kLeak ? after + sunk : after;
      levels[k] = after;
      if (any_crosses(end, highs[k], lows[k])) fire(k, before, end, step);
      if constexpr (kLeak) {
        highs[k] -= sunk;
        lows[k] -= sunk;
      }
    }
  }

  // A blind pixel has its crossings at infinity, so that it comes here in every step until it sees again.
  __attribute__((noinline)) void fire(int64_t k, Floats before, Floats end, int32_t step) {
    const StepTimes times = sample_.times[step];
    const float us = static_cast<float>(times.duration_us);
    CameraPixel<Floats> pixel{
        .level{}, .high = high(k), .low = low(k), .blind = blind(k), .on = on(k), .off = off(k), .noise_at{}};
    if (lanes_of((pixel.blind < us) & ((end >= pixel.high) | (end <= pixel.low)))) {
      const auto any = [](Ints mask) { return lanes_of(mask) != 0; };
      const auto emit = [&](Ints fires, Ints up, Floats time) {
        const Ints whole = __builtin_convertvector(time, Ints);
        const unsigned ups = lanes_of(up);
        for (unsigned lanes = lanes_of(fires); lanes; lanes &= lanes - 1) {
          const int j = __builtin_ctz(lanes);
          add(k, j, times.begin_us + std::min(whole[j], times.duration_us - 1), ups >> j & 1);
        }
      };
      pixel.fire(before, end, us, sample_.sensor.refractory_us, any, emit);
    }
    const Ints still = pixel.blind >= 0.0f;
    pixel.blind = still ? pixel.blind - us : pixel.blind;
    pixel.high = still ? -__builtin_inff() : pixel.high;
    pixel.low = still ? __builtin_inff() : pixel.low;
    store_state(k, pixel);
  }

  void noise(int64_t k) {
    for (unsigned lanes = lanes_of((noise_[k] < sample_.duration_us()) & (pixel_[k] >= 0)); lanes; lanes &= lanes - 1) {
      const int j = __builtin_ctz(lanes);
      add_noise(sample_, scene_.display_width, scene_.width, pixel_[k][j], noise_[k][j],
                [&](int32_t time, bool on) { add(k, j, time, on); });
    }
  }

  void add(int64_t k, int lane, int32_t time, bool on) {
    if (fired_ == kMostFired) drain();
    const int64_t at = k * kLanes + lane;
    const int64_t row = static_cast<uint32_t>(at) / static_cast<uint32_t>(pitch_);  // of 64 bits it takes twice as long
    events_[fired_++] = {static_cast<int16_t>(at - row * pitch_), static_cast<int16_t>(first_ + row), time, on};
  }

  void drain() {
    sink_.take(events_, fired_);
    fired_ = 0;
  }

  const CameraScene& scene_;
  const CameraSample& sample_;
  int64_t first_, rows_, pitch_, vectors_;
  std::vector<Floats> floats_;
  std::vector<Ints> pixel_, noise_;  // number of each pixel, -1 for none; time of its first background event
  EventSink& sink_;
  int64_t fired_ = 0;
  FiredEvent events_[kMostFired];
};

}  // namespace

void camera_rows(const CameraScene& scene, const CameraSample& sample, int64_t first, int64_t last, EventSink& sink) {
  const int64_t at_once = std::max<int64_t>(1, kScanTile / (scene.width + 1));
  for (int64_t row = first; row < last; row += at_once) {
    Rows(scene, sample, row, std::min(at_once, last - row), sink).simulate();
  }
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
