// tmkt::mixup_fwd and tmkt::mixup_bwd on the CPU: torch's threads share the rows (t, b).
#include <algorithm>
#include <vector>

#include "common/cpu.h"
#include "mixup/mixup_op.h"
#include "mixup/mixup_simd.h"

namespace tmkt {
namespace {

void check_range(const char* name, const int64_t* values, int64_t count, int64_t limit) {
  for (int64_t b = 0; values && b < count; ++b) {
    if (values[b] >= 0 && values[b] < limit) continue;
    // Python checks eager calls and raises IndexError; this guards compiled graphs and direct calls.
    fail("mixup: ", name, ": expected values in 0..", limit - 1, ", got ", values[b], " at ", b);
  }
}

void check_indices(const MixupArgs& args) {
  check_range("switch_step", args.switch_step, args.B, args.T + 1);
  check_range("static_index", args.static_index, args.B, args.static_count);
  check_range("event_index", args.event_index, args.B, args.event_count);
}

int64_t source_of(const int64_t* index, int64_t b) { return index ? index[b] : b; }

void mix(const MixupForwardArgs& args) {
  const int64_t row = args.C * args.plane;
  const bool one_plane = args.static_channels == 1;
  const bool stream = worth_streaming(args.T * args.B * row, args.mixed_kind) && args.plane % kStreamMultiple == 0;
  const MixupRow static_row{
      .source_kind = args.static_kind, .target_kind = args.mixed_kind, .scale = args.static_scale, .stream = stream};
  const MixupRow event_row{
      .source_kind = args.event_kind, .target_kind = args.mixed_kind, .scale = args.event_scale, .stream = stream};
  torch::stable::parallel_for(0, args.T * args.B, grain_size(row), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t t = i / args.B, b = i % args.B;
      const auto convert = TMKT_PICK_SIMD(mixup_convert);
      if (t >= args.switch_step[b]) {
        const int64_t source = (t * args.event_count + source_of(args.event_index, b)) * row;
        convert(event_row, args.events, source, args.mixed, i * row, row);
        continue;
      }
      const int64_t source = source_of(args.static_index, b) * args.static_channels * args.plane;
      const int64_t pieces = one_plane ? args.C : 1;  // one plane for all channels
      for (int64_t c = 0; c < pieces; ++c) {
        convert(static_row, args.static_images, source, args.mixed, i * row + c * args.plane, row / pieces);
      }
    }
  });
}

// Samples grouped by source, in ascending order: those of source i are order[start[i]..start[i + 1]).
struct SamplesBySource {
  std::vector<int64_t> start, order;

  SamplesBySource(const int64_t* index, int64_t batch, int64_t sources) : start(sources + 1), order(batch) {
    for (int64_t b = 0; b < batch; ++b) ++start[source_of(index, b) + 1];
    for (int64_t i = 0; i < sources; ++i) start[i + 1] += start[i];
    std::vector<int64_t> next(start.begin(), start.end() - 1);
    for (int64_t b = 0; b < batch; ++b) order[next[source_of(index, b)]++] = b;
  }
};

FloatKind as_float(PixelKind kind) {
  return kind == PixelKind::kFloat32    ? FloatKind::kFloat32
         : kind == PixelKind::kBFloat16 ? FloatKind::kBFloat16
                                        : FloatKind::kFloat16;
}

void backward_events(const MixupBackwardArgs& args) {
  const int64_t row = args.C * args.plane;
  const SamplesBySource samples(args.event_index, args.B, args.event_count);
  const MixupRow out{.source_kind = PixelKind::kFloat32,
                     .target_kind = as_float(args.event_kind),
                     .scale = args.event_scale,
                     .stream = false};
  torch::stable::parallel_for(0, args.T * args.event_count, grain_size(row), [&](int64_t begin, int64_t end) {
    std::vector<float> sum(row);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t t = i / args.event_count, e = i % args.event_count;
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (int64_t k = samples.start[e]; k < samples.start[e + 1]; ++k) {
        const int64_t b = samples.order[k];
        if (t < args.switch_step[b]) continue;
        TMKT_PICK_SIMD(mixup_accumulate)(args.grad_kind, args.grad, (t * args.B + b) * row, sum.data(), row);
      }
      TMKT_PICK_SIMD(mixup_convert)(out, sum.data(), 0, args.grad_events, i * row, row);
    }
  });
}

void backward_static(const MixupBackwardArgs& args) {
  const int64_t row = args.C * args.plane, static_row = args.static_channels * args.plane;
  const SamplesBySource samples(args.static_index, args.B, args.static_count);
  const MixupRow out{.source_kind = PixelKind::kFloat32,
                     .target_kind = as_float(args.static_kind),
                     .scale = args.static_scale,
                     .stream = false};
  torch::stable::parallel_for(0, args.static_count, grain_size(row), [&](int64_t begin, int64_t end) {
    std::vector<float> sum(static_row);
    for (int64_t i = begin; i < end; ++i) {
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (int64_t k = samples.start[i]; k < samples.start[i + 1]; ++k) {
        const int64_t b = samples.order[k];
        for (int64_t t = 0; t < args.switch_step[b]; ++t) {
          for (int64_t at = 0; at < row; at += static_row) {
            TMKT_PICK_SIMD(mixup_accumulate)
            (args.grad_kind, args.grad, (t * args.B + b) * row + at, sum.data(), static_row);
          }
        }
      }
      TMKT_PICK_SIMD(mixup_convert)(out, sum.data(), 0, args.grad_static, i * static_row, static_row);
    }
  });
}

struct Cpu {
  explicit Cpu(const Tensor&) {}

  void forward(const MixupForwardArgs& args) const {
    check_indices(args);
    mix(args);
  }

  void backward(const MixupBackwardArgs& args) const {
    check_indices(args);
    if (args.grad_static) backward_static(args);
    if (args.grad_events) backward_events(args);
  }
};

}  // namespace

// The schemas of tmkt_kernels/ops/mixup/op.py, see lif_cpu.cpp.
#define TMKT_MIXUP_INPUTS                                                                         \
  "Tensor static, Tensor events, Tensor switch_step, Tensor? static_index, Tensor? event_index, " \
  "float static_scale, float event_scale"
STABLE_TORCH_LIBRARY_FRAGMENT(tmkt, m) {
  m.def("mixup_fwd(" TMKT_MIXUP_INPUTS ", ScalarType dtype) -> Tensor");
  m.def("mixup_bwd(Tensor grad, " TMKT_MIXUP_INPUTS ", bool need_static, bool need_events) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(tmkt, CPU, m) {
  m.impl("mixup_fwd", TORCH_BOX(&mixup_fwd<Cpu>));
  m.impl("mixup_bwd", TORCH_BOX(&mixup_bwd<Cpu>));
}

}  // namespace tmkt
