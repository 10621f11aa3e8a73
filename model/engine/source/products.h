// Matrix products by tiles of sums that stay in registers.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "threads.h"
#include "vectors.h"

namespace {

// The right-hand matrix is packed into panels of four vectors' width, in blocks of rows:
// [block][panel][row][column]. `DEPTH` and `CHUNK` keep one panel's block and the block of
// left-hand rows it meets in the second-level cache.

enum { DEPTH = 1024, CHUNK = 96 };

// Panels that a stretch of a row is read for, one after the other: the processor foresees it.
enum { STRETCH = 8 };

// One vector's width of a panel: `columns` columns of a matrix with any two strides.
template <typename real>
void pack(long depth, long columns, const real *from, long row_stride, long column_stride,
          real *to) {
  const long count = std::max(0L, std::min(columns, LANES<real>));
  if (column_stride == 1) {
    for (long k = 0; k < depth; k++)
      store(to + k * PANEL<real>, load(from + k * row_stride, count));
    return;
  }
  long k = 0;
  if (row_stride == 1)
    for (; k + LANES<real> <= depth; k += LANES<real>) {
      vector<real> square[LANES<real>] = {};
      for (long j = 0; j < count; j++) square[j] = load(from + k + j * column_stride);
      transpose<1, real>(square);
      for (long i = 0; i < LANES<real>; i++) store(to + (k + i) * PANEL<real>, square[i]);
    }
  for (; k < depth; k++)
    for (long j = 0; j < LANES<real>; j++)
      to[k * PANEL<real> + j] = j < count ? from[k * row_stride + j * column_stride] : real(0);
}

// `panels` panels, `distance` apart.
template <typename real>
void pack_panels(long panels, long depth, long columns, const real *from, long row_stride,
                 long column_stride, real *to, long distance) {
  const long whole = column_stride == 1 ? std::min(panels, columns / PANEL<real>) : 0;
  for (long first = 0; first < whole; first += STRETCH)
    for (long k = 0; k < depth; k++)
      for (long p = first; p < std::min(whole, first + STRETCH); p++)
        for (long v = 0; v < PANEL<real>; v += LANES<real>)
          store(to + p * distance + k * PANEL<real> + v,
                load(from + k * row_stride + p * PANEL<real> + v));
  for (long p = whole; p < panels; p++)
    for (long v = 0; v < PANEL<real>; v += LANES<real>) {
      const long column = p * PANEL<real> + v;
      pack(depth, columns - column, from + column * column_stride, row_stride, column_stride,
           to + p * distance + v);
    }
}

template <typename real> long packed_size(long depth, long columns) {
  return depth * divide_up(columns, PANEL<real>) * PANEL<real>;
}

// The calling thread's share of the packing of a matrix: `parts` matrices (depth, columns), one
// below the other.
template <typename real>
void pack_matrix(long parts, long depth, long columns, const real *const *from, long row_stride,
                 long column_stride, real *to) {
  const long panels = divide_up(columns, PANEL<real>);
  const long total = parts * depth, block = block_size(total, DEPTH);
  const Share share(panels);
  const long column = share.begin * PANEL<real>;
  for (long k = 0; k < total; k += block) {
    const long rows = std::min(block, total - k);
    for (long done = 0; done < rows;) {
      const long part = (k + done) / depth, row = (k + done) % depth;
      const long count = std::min(rows - done, depth - row);
      pack_panels(share.end - share.begin, count, columns - column,
                  from[part] + row * row_stride + column * column_stride, row_stride,
                  column_stride, to + (k * panels + share.begin * rows + done) * PANEL<real>,
                  rows * PANEL<real>);
      done += count;
    }
  }
}

// Whether the calling thread's share of a packed matrix was made from this one, bit by bit.
template <typename real>
bool is_packed(long depth, long columns, const real *from, const real *packed) {
  const long panels = divide_up(columns, PANEL<real>), block = block_size(depth, DEPTH);
  const Share share(panels);
  for (long k = 0; k < depth; k += block) {
    const long rows = std::min(block, depth - k);
    for (long first = share.begin; first < share.end; first += STRETCH)
      for (long row = 0; row < rows; row++)
        for (long p = first; p < std::min(share.end, first + STRETCH); p++) {
          const long column = p * PANEL<real>;
          if (std::memcmp(packed + (k * panels + p * rows + row) * PANEL<real>,
                          from + (k + row) * columns + column,
                          std::min(PANEL<real>, columns - column) * sizeof(real)))
            return false;
        }
  }
  return true;
}

template <int M, typename real> using Sums = vector<real>[M][4];

// sums[r][v] += sum over k of left(r, k) * panel(k, v); `left` in strips of ROWS if STRIPS.
template <bool STRIPS, int M, typename real>
inline void multiply_add(long depth, const real *left, long ld, const real *panel,
                         Sums<M, real> &sums) {
  for (long k = 0; k < depth; k++) {
    real x[M];
#pragma GCC unroll 8
    for (int r = 0; r < M; r++) x[r] = STRIPS ? left[k * ROWS + r] : left[r * ld + k];
    // Vector by vector: otherwise a register too many is needed where there are 16.
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
      vector<real> weights = load(panel + v * LANES<real>);
      KEEP_IN_REGISTER(weights);
#pragma GCC unroll 8
      for (int r = 0; r < M; r++) sums[r][v] += x[r] * weights;
    }
    panel += PANEL<real>;
  }
}

template <int M, typename real>
inline void load_tile(const real *from, long ld, long columns, Sums<M, real> &sums) {
  for (int r = 0; r < M; r++)
    for (int v = 0; v < 4; v++)
      sums[r][v] = load(from + r * ld + v * LANES<real>, columns - v * LANES<real>);
}

template <int M, typename real>
inline void store_tile(const Sums<M, real> &sums, long columns, real *to, long ld) {
  for (int r = 0; r < M; r++)
    for (int v = 0; v < 4; v++)
      store(to + r * ld + v * LANES<real>, sums[r][v], columns - v * LANES<real>);
}

template <int M = ROWS, typename Body> inline void with_constant(long rows, const Body &body) {
  if constexpr (M > 0) {
    if (rows == M) body(std::integral_constant<int, M>());
    else with_constant<M - 1>(rows, body);
  }
}

// Calls body(row, M) for tiles of M <= ROWS rows, of about equal size.
template <typename Body> inline void for_tiles(long begin, long end, const Body &body) {
  for (long row = begin; row < end;) {
    const long rows = block_size(end - row, ROWS);
    with_constant(rows, [&](auto constant) { body(row, constant); });
    row += rows;
  }
}

// result = start + left * packed for the rows from `begin` to `end`; `start` may be `result`, or
// one row for all (ld_start 0).
template <typename real>
void multiply(long begin, long end, long columns, long depth, const real *left, long ld,
              const real *packed, const real *start, long ld_start, real *result,
              long ld_result) {
  const long panels = divide_up(columns, PANEL<real>), block = block_size(depth, DEPTH);
  for (long chunk = begin; chunk < end; chunk += CHUNK)
    for (long k = 0; k < depth; k += block) {
      const long rows = std::min(block, depth - k);
      for (long p = 0; p < panels; p++) {
        const real *panel = packed + (k * panels + p * rows) * PANEL<real>;
        const long column = p * PANEL<real>;
        for_tiles(chunk, std::min(end, chunk + CHUNK), [&](long row, auto constant) {
          constexpr int M = decltype(constant)::value;
          Sums<M, real> sums;
          if (k == 0)
            load_tile<M>(start + row * ld_start + column, ld_start, columns - column, sums);
          else
            load_tile<M>(result + row * ld_result + column, ld_result, columns - column, sums);
          multiply_add<false, M>(rows, left + row * ld + k, ld, panel, sums);
          store_tile<M>(sums, columns - column, result + row * ld_result + column, ld_result);
        });
      }
    }
}

enum { TOGETHER = 4 };  // panels that `multiply_transposed` takes at once

// What `multiply_transposed` needs of work space, at most.
template <typename real> long transposed_size(long rows, long height) {
  return rows * divide_up(height, ROWS) * ROWS +
         available_threads() * std::min(rows, DEPTH / 2L) * TOGETHER * PANEL<real>;
}

// results[n] += left^T * right[:, n-th block of columns], for a team of threads. `left` is
// (rows, height), `right` (rows, blocks * columns), every result (height, columns). The sum of
// right's rows is added to `row_sum` if that is given.
template <typename real>
void multiply_transposed(long rows, long height, long columns, long blocks, const real *left,
                         long ld_left, const real *right, long ld_right, real *const *results,
                         real *row_sum, real *work) {
  const long strips = divide_up(height, ROWS), block = block_size(rows, DEPTH / 2);
  const long WIDE = 8;  // strips packed at once
  // The left matrix in [block][strip][row][column].
#pragma omp for schedule(static)
  for (long first = 0; first < strips; first += WIDE)
    for (long i = 0; i < rows; i++)
      for (long s = first; s < std::min(strips, first + WIDE); s++) {
        const long k = i / block * block, depth = std::min(block, rows - k);
        const real *from = left + i * ld_left + s * ROWS;
        real *const to = work + (k * strips + s * depth + i - k) * ROWS;
        const long count = height - s * ROWS;
        if (count >= ROWS)
          std::memcpy(to, from, ROWS * sizeof(real));
        else
          for (long r = 0; r < ROWS; r++) to[r] = r < count ? from[r] : real(0);
      }
  real *const packed =
      work + rows * strips * ROWS + thread() * block * TOGETHER * PANEL<real>;
  const long panels = divide_up(columns, PANEL<real>), groups = divide_up(panels, TOGETHER);
#pragma omp for schedule(dynamic)
  for (long g = 0; g < blocks * groups; g++) {
    const long column = g % groups * TOGETHER * PANEL<real>;
    const long count = std::min((long)TOGETHER, panels - g % groups * TOGETHER);
    const long offset = g / groups * columns + column;
    for (long k = 0; k < rows; k += block) {
      const long depth = std::min(block, rows - k);
      pack_panels(count, depth, columns - column, right + k * ld_right + offset, ld_right, 1L,
                  packed, depth * PANEL<real>);
      for (long p = 0; row_sum && p < count; p++) {
        real *const to = row_sum + offset + p * PANEL<real>;
        Sums<1, real> sums;
        load_tile<1>(to, 0, columns - column - p * PANEL<real>, sums);
        for (long i = 0; i < depth; i++)
          for (long v = 0; v < 4; v++)
            sums[0][v] += load(packed + (p * depth + i) * PANEL<real> + v * LANES<real>);
        store_tile<1>(sums, columns - column - p * PANEL<real>, to, 0);
      }
      for (long chunk = 0; chunk < height; chunk += CHUNK)
        for (long p = 0; p < count; p++) {
          const long remaining = columns - column - p * PANEL<real>;
          real *const result = results[g / groups] + column + p * PANEL<real>;
          for (long row = chunk; row < std::min(height, chunk + CHUNK); row += ROWS)
            with_constant(std::min((long)ROWS, height - row), [&](auto constant) {
              constexpr int M = decltype(constant)::value;
              Sums<M, real> sums;
              load_tile<M>(result + row * columns, columns, remaining, sums);
              multiply_add<true, M>(depth, work + k * strips * ROWS + row * depth, 0,
                                    packed + p * depth * PANEL<real>, sums);
              store_tile<M>(sums, remaining, result + row * columns, columns);
            });
        }
    }
  }
}

}  // namespace
