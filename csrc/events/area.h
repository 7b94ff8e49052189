// Area resize along one axis: the share of each source pixel in the target cells.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tmkt {

// Source pixel i spreads over the cells first[i] .. first[i] + taps - 1 with weights[i * taps ...], which sum to 1.
// Shares are exact integers before the one division, so that they round the same on every platform.
struct AreaTable {
  int taps;
  std::vector<int> first;
  std::vector<float> weights;

  AreaTable(int64_t source, int64_t target) : taps(1), first(source), weights() {
    // In units of 1 / (source * target) of the axis, a pixel is `target` long and a cell `source` long.
    for (int64_t i = 0; i < source; ++i) {
      taps = std::max(taps, static_cast<int>(((i + 1) * target - 1) / source - i * target / source + 1));
    }
    // At least two taps, even where one would do, so that all down-sampling has one form, whose loop is unrolled.
    taps = static_cast<int>(std::min<int64_t>(std::max(taps, 2), target));
    weights.resize(source * taps);
    for (int64_t i = 0; i < source; ++i) {
      const int64_t begin = i * target;
      first[i] = static_cast<int>(std::min(begin / source, target - taps));
      for (int k = 0; k < taps; ++k) {
        const int64_t cell = (first[i] + k) * source;
        const int64_t overlap = std::min(begin + target, cell + source) - std::max(begin, cell);
        weights[i * taps + k] = static_cast<float>(std::max<int64_t>(overlap, 0)) / static_cast<float>(target);
      }
    }
  }
};

}  // namespace tmkt
