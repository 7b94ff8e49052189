// Seeded random numbers from integer arithmetic, + - * / and sqrt alone, which IEEE 754 rounds the same everywhere. The
// standard library's distributions and log() may differ between platforms.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace tmkt {

// Natural logarithm of a normal positive double, to about 1e-14: ln(m 2^k) = k ln 2 + 2 atanh((m - 1) / (m + 1)).
inline double portable_log(double x) {
  int64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  // Subtracting the bits of sqrt(1/2) puts m into [sqrt(1/2), sqrt(2)), where the series below converges quickly.
  const int64_t exponent = (bits - 0x3fe6a09e667f3bcd) >> 52;
  bits -= exponent * (int64_t{1} << 52);
  std::memcpy(&x, &bits, sizeof x);
  const double s = (x - 1.0) / (x + 1.0);
  const double z = s * s;
  double sum = 1.0 / 17;
  for (int k = 15; k > 0; k -= 2) sum = sum * z + 1.0 / k;
  return static_cast<double>(exponent) * 0.69314718055994530942 + 2.0 * s * sum;
}

// SplitMix64 (Steele, Lea and Flood 2014): a counter through a bijective mix, equidistributed over 2^64 draws.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // Uniform in the open interval (0, 1).
  double uniform() { return (static_cast<double>(bits() >> 12) + 0.5) * 0x1p-52; }

  // Standard normal, by Marsaglia's polar method.
  double normal() {
    for (;;) {
      const double u = 2.0 * uniform() - 1.0;
      const double v = 2.0 * uniform() - 1.0;
      const double r = u * u + v * v;
      if (r > 0.0 && r < 1.0) return u * std::sqrt(-2.0 * portable_log(r) / r);
    }
  }

  // Exponential with mean 1: the waiting time of a Poisson process.
  double exponential() { return -portable_log(uniform()); }

 private:
  uint64_t state_;
};

}  // namespace tmkt
