// Threads, their shares of the work, and work space.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "vectors.h"

namespace {

inline int available_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}
inline int thread() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}
inline int team() {
#ifdef _OPENMP
  return omp_get_num_threads();
#else
  return 1;
#endif
}
// The calling thread's share of `count` items.
struct Share {
  long begin, end;
  explicit Share(long count)
      : begin(count * thread() / team()), end(count * (thread() + 1) / team()) {}
};
// Threads beyond one tile of rows each would only read the same weights again.
inline int threads_for_rows(long rows) {
  return (int)std::max(1L, std::min((long)available_threads(), rows / ROWS));
}

inline long divide_up(long a, long b) { return (a + b - 1) / b; }
// The size of equal blocks, none above `most`, that make up `total`.
inline long block_size(long total, long most) {
  return divide_up(total, std::max(1L, divide_up(total, most)));
}

// Work space for `count` numbers, kept from call to call by each calling thread; null when there
// is no memory left.
template <typename real> real *workspace(long count) {
  static thread_local std::unique_ptr<void, decltype(&std::free)> kept(nullptr, &std::free);
  static thread_local long size = 0;
  const long bytes = divide_up(std::max(1L, count) * sizeof(real), 64) * 64;
  if (bytes > size) {
    kept.reset();
    kept.reset(std::aligned_alloc(64, bytes));
    size = kept ? bytes : 0;
  }
  return static_cast<real *>(kept.get());
}

}  // namespace
