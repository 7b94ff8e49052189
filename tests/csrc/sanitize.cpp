// The CPU loops on buffers of exactly their size, for AddressSanitizer and
// UndefinedBehaviorSanitizer: `make sanitize`. Compiled for one SIMD level at a time; no torch, no Python.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "bn_lif/bn_lif_simd.h"
#include "bn_lif/bn_planes_simd.h"
#include "common/cpu.h"
#include "lif/lif_simd.h"
#include "mixup/mixup_simd.h"

using namespace tmkt;
using namespace tmkt::TMKT_SIMD;

namespace {

int64_t calls = 0;

// `bytes` from the heap, aligned as torch aligns, whose end AddressSanitizer watches.
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
    } else {  // a bfloat16, and as a float16 some other number of its size
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

// bn_lif plane by plane, as it is and pooled.
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
  backward.again = forward.kind != FloatKind::kFloat32;
  if (backward.again) {
    pass();
  } else {
    planes_finish(backward, 0, forward.T * planes);
  }
  ++calls;
}

void check_lif(int64_t T, int64_t channels, int64_t inner, FloatKind kind, Reset reset, bool own, bool every) {
  const int64_t N = 3 * channels * inner;
  const bool stream = N % kStreamMultiple == 0;
  const auto x = values(T * N, kind), grad = values(T * N, kind), spikes = values(T * N, kind);
  const auto v_seq = values(T * N, kind), grad_x = values(T * N, kind);
  const auto v = values(N, FloatKind::kFloat32), v_last = values(N, FloatKind::kFloat32);
  const auto sums = values(kLifParams * N, FloatKind::kFloat32);
  const auto table = values(kLifParams * channels, FloatKind::kFloat32);
  const auto history = buffer(T * kLifTile * 4);
  LifForwardArgs forward{};
  forward.params = {0.5f, 0.5f, 0.0f, 1.0f, 0.0f};
  forward.reset = reset;
  forward.kind = kind;
  forward.T = T;
  forward.N = N;
  forward.x = x.get();
  forward.v_init = every ? static_cast<float*>(v.get()) : nullptr;
  forward.coefficients = own ? static_cast<float*>(table.get()) : nullptr;
  forward.channels = own ? channels : 0;
  forward.inner = inner;
  forward.spikes = spikes.get();
  forward.v_last = static_cast<float*>(v_last.get());
  forward.v_seq = every ? v_seq.get() : nullptr;
  lif_forward(forward, stream, 0, N);
  LifBackwardArgs backward{};
  static_cast<LifArgs&>(backward) = forward;
  backward.surrogate = {static_cast<Surrogate>(calls % kSurrogates), 2.0f, 1.0f};
  backward.detach_reset = !every;
  backward.grad_spikes = grad.get();
  backward.grad_v_last = forward.v_init;
  backward.grad_v_seq = every ? grad.get() : nullptr;
  backward.grad_x = grad_x.get();
  backward.grad_v_init = every ? static_cast<float*>(v_last.get()) : nullptr;
  backward.grad_coefficients = own ? static_cast<float*>(sums.get()) : nullptr;
  lif_backward(backward, stream, static_cast<float*>(history.get()), 0, N);
  ++calls;

  BnLifForwardArgs normed{};
  static_cast<LifForwardArgs&>(normed) = forward;
  normed.coefficients = nullptr;
  normed.channels = 0;
  float* row = static_cast<float*>(table.get());
  normed.bn = {channels, inner, row, row + channels, row + 2 * channels, 0};
  const int64_t cells = inner >= 64 ? T * N / inner : N;
  const auto moments = buffer(2 * cells * 4);
  std::vector<float> pivots(channels);
  std::vector<double> center(channels), total(channels);
  channel_pivots(forward, channels, inner, pivots.data());
  float* cell_moments = static_cast<float*>(moments.get());
  if (inner >= 64) {
    plane_moments(forward, normed.bn, pivots.data(), cell_moments, 0, cells);
  } else {
    neuron_moments(forward, channels, inner, pivots.data(), cell_moments, 0, N);
  }
  channel_sums(cell_moments, cells, channels, inner >= 64 ? 1 : inner, center.data(), 2, total.data());
  bn_lif_forward(normed, stream, 0, N);
  BnLifBackwardArgs adjoint{};
  static_cast<LifBackwardArgs&>(adjoint) = backward;
  adjoint.coefficients = nullptr;
  adjoint.channels = 0;
  adjoint.grad_coefficients = nullptr;
  adjoint.bn = normed.bn;
  adjoint.batch_statistics = true;
  adjoint.sums = static_cast<float*>(sums.get());
  adjoint.g_mean = row + 3 * channels;
  adjoint.slope = row + 4 * channels;
  bn_lif_backward(adjoint, stream, static_cast<float*>(history.get()), 0, N);
  if (kind == FloatKind::kFloat32) {
    bn_lif_finish(adjoint, 0, T * N);
  } else {
    BnLifBackwardArgs second = adjoint;
    second.again = true;
    bn_lif_backward(second, stream, static_cast<float*>(history.get()), 0, N);
  }
  ++calls;
  const bool whole_lines = stream && inner % kStreamMultiple == 0;
  for (const int64_t width : {0, 4, 13, 24}) {
    if (width == 0 || (inner % width == 0 && inner > width)) check_planes(normed, adjoint, whole_lines, width);
  }
}

void check_mixup(int64_t count, PixelKind source, FloatKind target) {
  const int64_t size = source == PixelKind::kUInt8 ? 1 : source == PixelKind::kFloat32 ? 4 : 2;
  const auto from = buffer(count * size);
  std::memset(from.get(), 0x3c, count * size);
  const auto to = values(count, target), sum = values(count, FloatKind::kFloat32);
  const MixupRow row{source, target, 0.5f, count % kStreamMultiple == 0};
  mixup_convert(row, from.get(), 0, to.get(), 0, count);
  mixup_accumulate(target, to.get(), 0, static_cast<float*>(sum.get()), count);
  ++calls;
}

}  // namespace

int main() {
  for (const FloatKind kind : {FloatKind::kFloat32, FloatKind::kBFloat16, FloatKind::kFloat16}) {
    for (const int64_t inner : {1, 3, 16, 65, 576}) {
      for (const int64_t T : {1, 2, 7, 21}) {
        for (const Reset reset :
             {Reset::kHard, Reset::kSoft, Reset::kDelayedSubtract, Reset::kDelayedZero, Reset::kNone}) {
          for (const bool own : {false, true}) {
            check_lif(T, 5, inner, kind, reset, own, own != (T == 2));
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
