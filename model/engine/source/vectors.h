// Vectors of the width of a register, and the functions of the gates on them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

// Bytes of a vector register, and rows of a tile: a tile of ROWS x 4 vectors of sums, one vector
// of weights and the broadcast inputs must fit in the registers (32 of them, or 16).
// A compiler's option can name another shape, as the tests do: -DSHAPE_BYTES=16 -DSHAPE_ROWS=6.
#if defined(SHAPE_BYTES)
enum { BYTES = SHAPE_BYTES, ROWS = SHAPE_ROWS };
#elif defined(__AVX512F__)
enum { BYTES = 64, ROWS = 6 };
#elif defined(__AVX__)
enum { BYTES = 32, ROWS = 3 };
#elif defined(__aarch64__)
enum { BYTES = 16, ROWS = 6 };
#else
enum { BYTES = 16, ROWS = 3 };
#endif

// Left to itself GCC reads a vector from memory again for every row of a tile, which takes more
// loads than the processor can do beside the sums: a quarter of the speed.
#if defined(__x86_64__)
#define KEEP_IN_REGISTER(x) __asm__("" : "+v"(x))
#else
#define KEEP_IN_REGISTER(x) (void)0
#endif

typedef float floats __attribute__((vector_size(BYTES)));
typedef double doubles __attribute__((vector_size(BYTES)));
typedef int32_t integers __attribute__((vector_size(BYTES)));

template <typename real> struct traits;
template <> struct traits<float> {
  typedef int32_t places __attribute__((vector_size(BYTES)));
  typedef floats vector;
  typedef float unaligned __attribute__((vector_size(BYTES), aligned(4), may_alias));
};
template <> struct traits<double> {
  typedef int64_t places __attribute__((vector_size(BYTES)));
  typedef doubles vector;
  typedef double unaligned __attribute__((vector_size(BYTES), aligned(8), may_alias));
};
template <typename real> using vector = typename traits<real>::vector;
template <typename real> constexpr long LANES = BYTES / sizeof(real);
template <typename real> constexpr long PANEL = 4 * LANES<real>;  // columns of a tile

template <typename real> inline vector<real> load(const real *from) {
  return *reinterpret_cast<const typename traits<real>::unaligned *>(from);
}
template <typename real> inline void store(real *to, vector<real> x) {
  *reinterpret_cast<typename traits<real>::unaligned *>(to) = x;
}
// The last vector of a row may be partial; zeros then stand for what is missing.
template <typename real> inline vector<real> load(const real *from, long count) {
  if (count >= LANES<real>) return load(from);
  vector<real> x = {};
  if (count > 0) std::memcpy(&x, from, count * sizeof(real));
  return x;
}
template <typename real> inline void store(real *to, vector<real> x, long count) {
  if (count >= LANES<real>) store(to, x);
  else if (count > 0) std::memcpy(to, &x, count * sizeof(real));
}

// Exchanges rows and columns of a square: off-diagonal blocks of 1, 2, 4 ... numbers, one after the
// other.
template <long SIZE = 1, typename real> inline void transpose(vector<real> (&rows)[LANES<real>]) {
  if constexpr (SIZE < LANES<real>) {
    typename traits<real>::places upper, lower;
    for (long j = 0; j < LANES<real>; j++) {
      upper[j] = j & SIZE ? LANES<real> + j - SIZE : j;
      lower[j] = j & SIZE ? LANES<real> + j : j + SIZE;
    }
    for (long i = 0; i < LANES<real>; i++)
      if (!(i & SIZE)) {
        const vector<real> x = rows[i], y = rows[i + SIZE];
        rows[i] = __builtin_shuffle(x, y, upper);
        rows[i + SIZE] = __builtin_shuffle(x, y, lower);
      }
    transpose<2 * SIZE, real>(rows);
  }
}

// ---- exponential, logistic function, hyperbolic tangent ----
// In single precision within 2e-7 of the value, relatively. Not-a-number passes through.

inline floats exponential(floats x) {
  const floats low = floats{} - 87.3f, high = floats{} + 88.3f;
  x = x < low ? low : x;
  x = x > high ? high : x;
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
  const floats shifted = x * 1.44269504f + 12582912.f;
  const floats n = shifted - 12582912.f;
  const floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  floats y = r * 1.9875691500e-4f + 1.3981999507e-3f;  // Cephes, expf
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r + 1.f;
  return y * (floats)(((integers)shifted << 23) + 0x3f800000);
}
inline floats hyperbolic_tangent(floats x) {
  const integers sign = (integers)x & (int32_t)0x80000000;
  const floats size = (floats)((integers)x ^ sign);
  const floats z = x * x;
  floats small = z * -5.70498872745e-3f + 2.06390887954e-2f;  // Cephes, tanhf, below 0.625
  small = small * z - 5.37397155531e-2f;
  small = small * z + 1.33314422036e-1f;
  small = small * z - 3.33332819422e-1f;
  small = small * z * size + size;
  const floats large = 1.f - 2.f / (exponential(size + size) + 1.f);
  return (floats)((integers)(size < 0.625f ? small : large) ^ sign);
}
inline doubles exponential(doubles x) {
  for (long j = 0; j < LANES<double>; j++) x[j] = std::exp(x[j]);
  return x;
}
inline doubles hyperbolic_tangent(doubles x) {
  for (long j = 0; j < LANES<double>; j++) x[j] = std::tanh(x[j]);
  return x;
}
template <typename V> inline V logistic(V x) { return 1 / (1 + exponential(-x)); }

}  // namespace
