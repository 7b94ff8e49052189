// The CPU loops on buffers of exactly their size, for AddressSanitizer and
// UndefinedBehaviorSanitizer: `make sanitize`. Compiled for one SIMD level at a time, without torch and Python.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "bn_lif/bn_lif_simd.h"
#include "bn_lif/bn_planes_simd.h"
#include "bn_lif/statistics_simd.h"
#include "camera/camera_simd.h"
#include "common/cpu.h"
#include "lif/lif_simd.h"
#include "mixup/mixup_simd.h"

using namespace tmkt;
using namespace tmkt::TMKT_SIMD;

namespace {

int64_t calls = 0;

// `bytes` from the heap, aligned as torch aligns; AddressSanitizer watches their end.
std::shared_ptr<void> buffer(int64_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, bytes > 0 ? bytes : 1) != 0) std::abort();
  return {memory, std::free};
}

std::shared_ptr<void> values(int64_t count, FloatKind kind) {
  const auto memory = buffer(count * (kind == FloatKind::kFloat32 ? 4 : 2));
  for (int64_t i = 0; i < count; ++i) {
    const float value = std::sin(static_cast<float>(i)) * 2.0f;
    if (kind == FloatKind::kFloat32) {
      static_cast<float*>(memory.get())[i] = value;
    } else {  // a bfloat16; as a float16 it is another number of its size
      static_cast<uint16_t*>(memory.get())[i] = static_cast<uint16_t>(bit_cast<uint32_t>(value) >> 16);
    }
  }
  return memory;
}

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "sanitize: %s\n", what);
  std::exit(1);
}

// bn_lif plane by plane, plain and pooled.
void check_planes(BnLifForwardArgs forward, BnLifBackwardArgs backward, bool stream, int64_t pool_width) {
  const int64_t inner = forward.bn.inner, planes = forward.N / inner;
  forward.bn.pool_width = backward.bn.pool_width = pool_width;
  const int64_t height = pool_width > 0 ? inner / pool_width : 0;
  const int64_t pooled_size = planes * (height / 2) * (pool_width / 2);
  const auto spikes = values(forward.T * pooled_size, forward.kind),
             grad = values(forward.T * pooled_size, forward.kind);
  const auto pooled = buffer(pool_width > 0 ? pooled_floats(forward.T, inner) * 4 : 0);
  const auto history = buffer(2 * forward.T * kPlaneTile * 4), sums = buffer(2 * planes * 8);
  float* rows = pool_width > 0 ? static_cast<float*>(pooled.get()) : nullptr;
  if (pool_width > 0) {
    forward.spikes = spikes.get();
    backward.grad_spikes = grad.get();
  }
  planes_forward(forward, stream, rows, 0, planes);
  const auto pass = [&] {
    planes_backward(backward, stream, rows, static_cast<float*>(history.get()), static_cast<double*>(sums.get()), 0,
                    planes);
  };
  pass();
  backward.second_pass = forward.kind != FloatKind::kFloat32;
  if (backward.second_pass) {
    pass();
  } else {
    planes_finish(backward, 0, forward.T * planes);
  }
  ++calls;
}

// Buffers of one case, each of exactly its size.
struct Case {
  int64_t T, channels, inner, N;
  FloatKind kind;
  std::shared_ptr<void> x, grad, spikes, v_seq, grad_x, v, v_last, sums, table, history;

  Case(int64_t T, int64_t channels, int64_t inner, FloatKind kind)
      : T(T), channels(channels), inner(inner), N(3 * channels * inner), kind(kind) {
    for (auto* sequence : {&x, &grad, &spikes, &v_seq, &grad_x}) *sequence = values(T * N, kind);
    for (auto* step : {&v, &v_last}) *step = values(N, FloatKind::kFloat32);
    sums = values(kLifParams * N, FloatKind::kFloat32);
    table = values(kLifParams * channels, FloatKind::kFloat32);
    history = buffer(T * kScanTile * 4);
  }
  bool stream() const { return N % kStreamMultiple == 0; }
};

float* floats(const std::shared_ptr<void>& memory) { return static_cast<float*>(memory.get()); }

// `every`: with all optional arguments.
LifForwardArgs forward_args(const Case& of, Reset reset, bool own, bool every) {
  LifForwardArgs args{};
  args.kind = of.kind;
  args.T = of.T;
  args.N = of.N;
  args.x = of.x.get();
  args.v_init = every ? floats(of.v) : nullptr;
  args.spikes = of.spikes.get();
  args.v_last = floats(of.v_last);
  args.v_seq = every ? of.v_seq.get() : nullptr;
  args.lif = {.params = {.a = 0.5f, .b = 0.5f, .c = 0.0f, .v_threshold = 1.0f, .v_reset = 0.0f},
              .reset = reset,
              .coefficients = own ? floats(of.table) : nullptr,
              .channels = own ? of.channels : 0,
              .inner = of.inner};
  return args;
}

LifBackwardArgs backward_args(const Case& of, const LifForwardArgs& forward, bool every) {
  LifBackwardArgs args{};
  static_cast<ScanArgs&>(args) = forward;
  args.lif = forward.lif;
  args.surrogate = {.surrogate = static_cast<Surrogate>(calls % kSurrogates), .alpha = 2.0f, .beta = 1.0f};
  args.detach_reset = !every;
  args.grad_spikes = of.grad.get();
  args.grad_v_last = forward.v_init;
  args.grad_v_seq = every ? of.grad.get() : nullptr;
  args.grad_x = of.grad_x.get();
  args.grad_v_init = every ? floats(of.v_last) : nullptr;
  args.grad_coefficients = forward.lif.coefficients ? floats(of.sums) : nullptr;
  return args;
}

void check_statistics(const Case& of, const BnLifForwardArgs& args) {
  const bool planes = of.inner >= 64;
  const int64_t cells = planes ? of.T * of.N / of.inner : of.N;
  const auto moments = buffer(2 * cells * 4);
  std::vector<float> pivots(of.channels);
  std::vector<double> center(of.channels), total(of.channels);
  channel_pivots(args, of.channels, of.inner, pivots.data());
  if (planes) {
    plane_moments(args, args.bn, pivots.data(), floats(moments), 0, cells);
  } else {
    neuron_moments(args, of.channels, of.inner, pivots.data(), floats(moments), 0, of.N);
  }
  channel_sums(floats(moments), cells, of.channels, planes ? 1 : of.inner, center.data(), 2, total.data());
}

void check_bn_lif(const Case& of, const LifForwardArgs& forward, const LifBackwardArgs& backward) {
  float* row = floats(of.table);
  BnLifForwardArgs normed{};
  static_cast<LifForwardArgs&>(normed) = forward;
  normed.lif.coefficients = nullptr;
  normed.lif.channels = 0;
  normed.bn = {.channels = of.channels,
               .inner = of.inner,
               .pool_width = 0,
               .mean = row,
               .scale = row + of.channels,
               .bias = row + 2 * of.channels};
  check_statistics(of, normed);
  bn_lif_forward(normed, of.stream(), 0, of.N);
  BnLifBackwardArgs adjoint{};
  static_cast<LifBackwardArgs&>(adjoint) = backward;
  adjoint.lif = normed.lif;
  adjoint.grad_coefficients = nullptr;
  adjoint.bn = normed.bn;
  adjoint.batch_statistics = true;
  adjoint.sums = floats(of.sums);
  adjoint.g_mean = row + 3 * of.channels;
  adjoint.slope = row + 4 * of.channels;
  bn_lif_backward(adjoint, of.stream(), floats(of.history), 0, of.N);
  if (of.kind == FloatKind::kFloat32) {
    bn_lif_finish(adjoint, 0, of.T * of.N);
  } else {
    BnLifBackwardArgs second = adjoint;
    second.second_pass = true;
    bn_lif_backward(second, of.stream(), floats(of.history), 0, of.N);
  }
  ++calls;
  const bool whole_lines = of.stream() && of.inner % kStreamMultiple == 0;
  for (const int64_t width : {0, 4, 13, 24}) {
    const bool divides = width == 0 || (of.inner % width == 0 && of.inner > width);
    if (divides) check_planes(normed, adjoint, whole_lines, width);
  }
}

void check_lif(const Case& of, Reset reset, bool own, bool every) {
  const LifForwardArgs forward = forward_args(of, reset, own, every);
  lif_forward(forward, of.stream(), 0, of.N);
  const LifBackwardArgs backward = backward_args(of, forward, every);
  lif_backward(backward, of.stream(), floats(of.history), 0, of.N);
  ++calls;
  check_bn_lif(of, forward, backward);
}

void check_mixup(int64_t count, PixelKind source, FloatKind target) {
  const int64_t size = source == PixelKind::kUInt8 ? 1 : source == PixelKind::kFloat32 ? 4 : 2;
  const auto from = buffer(count * size);
  std::memset(from.get(), 0x3c, count * size);
  const auto to = values(count, target), sum = values(count, FloatKind::kFloat32);
  const MixupRow row{
      .source_kind = source, .target_kind = target, .scale = 0.5f, .stream = count % kStreamMultiple == 0};
  mixup_convert(row, from.get(), 0, to.get(), 0, count);
  mixup_accumulate(target, to.get(), 0, static_cast<float*>(sum.get()), count);
  ++calls;
}

// Takes events, which must lie in the rows and steps that were simulated.
struct Recording final : EventSink {
  int64_t width, first, last, events = 0;
  int32_t duration_us;

  Recording(int64_t width, int64_t first, int64_t last, int32_t duration_us)
      : width(width), first(first), last(last), duration_us(duration_us) {}

  void take(const FiredEvent* fired, int64_t count) override {
    for (int64_t i = 0; i < count; ++i) {
      require(fired[i].x >= 0 && fired[i].x < width && fired[i].y >= first && fired[i].y < last, "camera: a pixel");
      require(fired[i].time_us >= 0 && fired[i].time_us < duration_us, "camera: a time");
    }
    events += count;
  }
};

// A view that moves over a display of exactly its size. Returns the number of events.
int64_t check_camera(int64_t width, int64_t height, SensorValues sensor) {
  constexpr int32_t kSteps = 30, kStepUs = 900;
  const int64_t extra = 3, display_width = width + extra + 1, display_height = height + extra + 1;
  const auto display = buffer(display_width * display_height * 4);
  for (int64_t i = 0; i < display_width * display_height; ++i) floats(display)[i] = 0.14f + (i * i % 7) / 7.0f;
  const auto times = buffer(kSteps * sizeof(StepTimes)), shares = buffer(kSteps * sizeof(StepShares));
  for (int32_t k = 0; k < kSteps; ++k) {
    const int64_t moved = k % 3 ? k / 8 : extra;  // rests now and then
    static_cast<StepTimes*>(times.get())[k] = {static_cast<int32_t>(moved * (display_width + 1)),
                                               k > 0 ? (k - 1) * kStepUs : 0, k > 0 ? kStepUs : 0};
    static_cast<StepShares*>(shares.get())[k] = {0.25f, 0.75f, 0.5f};
  }
  const int32_t n_steps = kSteps;
  const int64_t seed = -1;
  const CameraScene scene{.B = 1,
                          .S = kSteps,
                          .display_width = display_width,
                          .display_height = display_height,
                          .width = width,
                          .height = height,
                          .display = floats(display),
                          .times = static_cast<StepTimes*>(times.get()),
                          .shares = static_cast<StepShares*>(shares.get()),
                          .n_steps = &n_steps,
                          .sensor = &sensor,
                          .seeds = &seed};
  const CameraSample sample(scene, 0);
  Recording recording(width, height / 3, height, sample.duration_us());
  camera_rows(scene, sample, height / 3, height, recording);
  ++calls;
  return recording.events;
}

}  // namespace

int main() {
  int64_t events = 0;
  for (const float refractory_us : {0.0f, 950.0f, 5000.0f}) {
    for (const int64_t width : {1, 2, 3, 7, 8, 16, 34, 35, 600}) {
      for (const int64_t height : {1, 2, 5, 40}) {
        events += check_camera(width, height,
                               {.on = 0.3f,
                                .off = 0.2f,
                                .mismatch = 0.2f,
                                .refractory_us = refractory_us,
                                .leak = width % 2 ? 1e-5f : 0.0f,
                                .noise_wait_us = 1e4f,
                                .hot_wait_us = 10.0f,
                                .dead_below = 0.1f,
                                .hot_from = 0.95f,
                                .noise_on_share = 0.7f,
                                .noise_dimming = 0.5f,
                                .dark = 0.14f});
      }
    }
  }
  require(events > 100'000, "camera: hardly an event");
  std::printf("sanitize: %lld events of cameras\n", static_cast<long long>(events));
  for (const FloatKind kind : {FloatKind::kFloat32, FloatKind::kBFloat16, FloatKind::kFloat16}) {
    for (const int64_t inner : {1, 3, 16, 65, 576}) {
      for (const int64_t T : {1, 2, 7, 21}) {
        for (const Reset reset :
             {Reset::kHard, Reset::kSoft, Reset::kDelayedSubtract, Reset::kDelayedZero, Reset::kNone}) {
          for (const bool own : {false, true}) {
            check_lif(Case(T, 5, inner, kind), reset, own, own != (T == 2));
          }
        }
      }
    }
    for (const PixelKind source : {PixelKind::kUInt8, PixelKind::kInt16, PixelKind::kFloat32, PixelKind::kFloat16}) {
      for (const int64_t count : {1, 7, 16, 33, 4096}) check_mixup(count, source, kind);
    }
  }
  require(calls > 1000, "fewer cases than meant");
  std::printf("sanitize: %lld cases, level %s\n", static_cast<long long>(calls), TMKT_LEVEL);
  return 0;
}
