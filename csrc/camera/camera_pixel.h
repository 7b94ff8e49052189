// Pixels of an event camera; mirrors tmkt_kernels/ops/camera/reference.py, rounding included.
// V is a float, or a compiler vector of floats: as many pixels. I and W are the signed and unsigned integers of its
// size.
#pragma once

#include <type_traits>

#include "camera/camera_args.h"

namespace tmkt {

template <typename V>
using LaneInts = std::conditional_t<std::is_same_v<V, float>, int32_t, decltype(V{} < V{})>;

template <typename V>
TMKT_INLINE V to_floats(LaneInts<V> x) {
  if constexpr (std::is_same_v<V, float>) {
    return static_cast<float>(x);
  } else {
    return __builtin_convertvector(x, V);
  }
}

template <typename V>
TMKT_INLINE LaneInts<V> to_ints(V x) {
  if constexpr (std::is_same_v<V, float>) {
    return static_cast<int32_t>(x);
  } else {
    return __builtin_convertvector(x, LaneInts<V>);
  }
}

// Logarithm to base 2 of positive normal numbers, to 4e-7.
template <typename V>
TMKT_INLINE V log2_of(V x) {
  using I = LaneInts<V>;
  const I bits = bit_cast<I>(x);
  const I exponent = (bits - 0x3f3504f3) >> 23;  // subtracting sqrt(1/2) puts the rest into [sqrt(1/2), sqrt(2))
  const V r = bit_cast<V>(bits - (exponent << 23)) - 1.0f;
  V p = r * 0.17063450813293457f + -0.27269792556762695f;
  p = p * r + 0.297262579202652f;
  p = p * r + -0.3589618504047394f;
  p = p * r + 0.48046502470970154f;
  p = p * r + -0.7213758826255798f;
  p = p * r + 1.442699670791626f;
  return to_floats<V>(exponent) + r * p;
}

// The product of two words of 32 bits.
struct MultiplyWords {
  TMKT_INLINE void operator()(uint32_t a, uint32_t b, uint32_t& high, uint32_t& low) const {
    const uint64_t product = static_cast<uint64_t>(a) * b;
    high = static_cast<uint32_t>(product >> 32);
    low = static_cast<uint32_t>(product);
  }
};

// Four random words: Philox4x32-10 (Salmon et al. 2011), with the counter (counter, draw, 0, 0).
template <typename W, typename Multiply>
TMKT_INLINE void philox(Multiply multiply, uint64_t key, W counter, uint32_t draw, W (&words)[4]) {
  uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  words[0] = counter;
  words[1] = W{} + draw;
  words[2] = words[3] = W{};
  for (int round = 0; round < 10; ++round) {
    W first_high, first_low, second_high, second_low;
    multiply(words[0], 0xd2511f53u, first_high, first_low);
    multiply(words[2], 0xcd9e8d57u, second_high, second_low);
    words[0] = second_high ^ words[1] ^ low;
    words[1] = second_low;
    words[2] = first_high ^ words[3] ^ high;
    words[3] = first_low;
    low += 0x9e3779b9u;
    high += 0xbb67ae85u;
  }
}

// Uniform in the open interval (0, 1).
template <typename V, typename W>
TMKT_INLINE V uniform(W word) {
  return (to_floats<V>(bit_cast<LaneInts<V>>(word >> 9)) + 0.5f) * 0x1p-23f;
}

// Mean 0 and variance 1: the sum of the eight halves of four words (Irwin and Hall).
template <typename V, typename W>
TMKT_INLINE V normal(const W (&words)[4]) {
  W sum{};
  for (int k = 0; k < 4; ++k) sum += (words[k] >> 16) + (words[k] & 0xffffu);
  return to_floats<V>(bit_cast<LaneInts<V>>(sum) - 4 * 65535) * 0x1.3988e2p-16f;
}

// Time to the next background event, us, rounded.
template <typename V>
TMKT_INLINE LaneInts<V> wait_of(V uniform_number, V wait_us) {
  const V wait = -log2_of(uniform_number) * wait_us + 0.5f;
  return to_ints(wait < 0x1p30f ? wait : 0x1p30f);
}

constexpr int32_t kNever = 1 << 30;  // us; recordings are at most as long

// Time of the first background event, us, by the words of draw 2; kNever for dead pixels.
template <typename V, typename W>
TMKT_INLINE LaneInts<V> first_noise(const SensorValues& sensor, const W (&words)[4]) {
  const V kind = uniform<V>(words[0]);
  const V wait_us = kind >= sensor.hot_from ? sensor.hot_wait_us : sensor.noise_wait_us;
  const LaneInts<V> time = wait_of(uniform<V>(words[2]), wait_us);
  return kind < sensor.dead_below ? kNever : time;
}

template <typename V>
struct CameraPixel {
  V level;               // of the photoreceptor
  V high, low;           // levels at which on and off events fire
  V blind;               // rest of the refractory period, us; negative: not blind
  V on, off;             // thresholds
  LaneInts<V> noise_at;  // time of the first background event, us

  // The pixels numbered `counter`, which see `light` first. Where `dead`, a pixel never fires.
  template <typename W, typename Multiply>
  TMKT_INLINE void start(Multiply multiply, const SensorValues& sensor, uint64_t seed, W counter, V light) {
    W words[4];
    philox(multiply, seed, counter, 0, words);
    on = sensor.on * threshold_factor(sensor, normal<V>(words));
    philox(multiply, seed, counter, 1, words);
    off = sensor.off * threshold_factor(sensor, normal<V>(words));
    philox(multiply, seed, counter, 2, words);
    level = log2_of(light);
    const V phase = sensor.leak > 0.0f ? uniform<V>(words[1]) : V{};
    const V reference = level - phase * on;
    const auto dead = uniform<V>(words[0]) < sensor.dead_below;
    high = dead ? __builtin_inff() : reference + on;
    low = dead ? -__builtin_inff() : reference - off;
    blind = V{} - 1.0f;
    noise_at = first_noise<V>(sensor, words);
  }

  // Fires the events of a step of `us` in which the level moves linearly from `before` to `end`. Calls
  // emit(fires, up, time) until no pixel fires again; any(fires) tells whether one does.
  template <typename Any, typename Emit>
  TMKT_INLINE void fire(V before, V end, float us, float refractory_us, Any any, Emit emit) {
    const V slope = (end - before) / us;
    auto going = blind < us;
    do {
      const auto woken = going & (blind >= 0.0f);
      const V seen = before + slope * blind;
      high = woken ? seen + on : high;
      low = woken ? seen - off : low;
      const auto up = end >= high;
      const auto fires = going & (up | (end <= low));
      const V crossed = up ? high : low;
      V time = (crossed - before) / slope;
      time = time > 0.0f ? (time < us ? time : us) : 0.0f;  // 0 for NaN
      emit(fires, up, time);
      high = fires ? crossed + on : high;
      low = fires ? crossed - off : low;
      const V idle = going ? -1.0f : blind;
      blind = fires ? time + refractory_us : idle;
      going = fires & (blind < us);
    } while (any(going));
  }

 private:
  // The least factor keeps an unlucky draw from a zero threshold, at which the pixel would fire without end.
  static TMKT_INLINE V threshold_factor(const SensorValues& sensor, V deviation) {
    const V factor = 1.0f + sensor.mismatch * deviation;
    return factor > 0.1f ? factor : 0.1f;
  }
};

// Light at pixel (x, y) of the sensor in one step.
TMKT_INLINE float light_at(const CameraSample& sample, int64_t display_width, int32_t step, int64_t x, int64_t y) {
  const float* upper = sample.display + sample.times[step].corner + y * display_width + x;
  const float* lower = upper + display_width;
  const StepShares share = sample.shares[step];
  const float left = upper[0] + share.down * (lower[0] - upper[0]);
  const float right = upper[1] + share.down * (lower[1] - upper[1]);
  return left + share.right * (right - left);
}

// Background events of one pixel from the first on, a Poisson process that bright light thins out; calls
// emit(time, on).
template <typename Emit>
TMKT_INLINE void add_noise(const CameraSample& sample, int64_t display_width, int64_t width, int64_t pixel,
                           int32_t first, Emit emit) {
  const SensorValues& sensor = sample.sensor;
  const int32_t duration_us = sample.duration_us();
  uint32_t words[4];
  philox(MultiplyWords{}, sample.seed, static_cast<uint32_t>(pixel), 2, words);
  const float wait_us = uniform<float>(words[0]) >= sensor.hot_from ? sensor.hot_wait_us : sensor.noise_wait_us;
  int32_t step = 0;
  for (uint32_t draw = 3; first < duration_us; ++draw) {
    philox(MultiplyWords{}, sample.seed, static_cast<uint32_t>(pixel), draw, words);
    while (step + 1 < sample.n_steps && sample.times[step + 1].begin_us <= first) ++step;
    const float light = light_at(sample, display_width, step, pixel % width, pixel / width);
    const float kept_below = (1.0f + sensor.noise_dimming * sensor.dark) - sensor.noise_dimming * light;
    if (uniform<float>(words[1]) < kept_below) emit(first, uniform<float>(words[0]) < sensor.noise_on_share);
    first += wait_of(uniform<float>(words[2]), wait_us);
  }
}

}  // namespace tmkt
