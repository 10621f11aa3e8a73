// Matrix products, LSTM and softmax layers for lstm_op.py and softmax_op.py; see native.py.
//
// Written with GCC's vector extensions, so that one source serves every processor. BLAS is not
// used: packed once, the recurrent weights serve all steps, the gates' arithmetic starts from
// registers, and each thread takes its own sentences through all steps without waiting for the
// others. On the shapes that occur a general sgemm, with the gates to be computed after it, is
// slower (see docs/performance.md).
//
// All matrices are row-major; `ld` is the distance between rows. Arrays over steps have the axes
// (steps, sentences, units). Gates are in the order in, forget, cell, out everywhere.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

// Bytes of a vector register, and rows of a tile: a tile of ROWS x 4 vectors of sums, one vector
// of weights and the broadcast inputs must fit in the registers (32 of them, or 16).
#if defined(__AVX512F__)
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

enum { GATES = 4, IN = 0, FORGET = 1, CELL = 2, OUT = 3 };

typedef float floats __attribute__((vector_size(BYTES)));
typedef double doubles __attribute__((vector_size(BYTES)));
typedef int32_t integers __attribute__((vector_size(BYTES)));

template <typename real> struct traits;
template <> struct traits<float> {
  typedef floats vector;
  typedef float unaligned __attribute__((vector_size(BYTES), aligned(4), may_alias));
};
template <> struct traits<double> {
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

// ---- threads and memory ----

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

// ---- matrix products ----
//
// The right-hand matrix is packed into panels of four vectors' width, in blocks of rows:
// [block][panel][row][column]. `DEPTH` and `CHUNK` keep one panel's block and the block of
// left-hand rows it meets in the second-level cache.

enum { DEPTH = 1024, CHUNK = 96 };

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
  for (long k = 0; k < depth; k += LANES<real>) {
    const long rows = std::min(depth - k, LANES<real>);
    for (long j = 0; j < LANES<real>; j++)
      for (long i = 0; i < rows; i++)
        to[(k + i) * PANEL<real> + j] =
            j < count ? from[(k + i) * row_stride + j * column_stride] : real(0);
  }
}

// `panels` panels, `distance` apart. Rows are read in stretches of several panels, which the
// processor foresees.
template <typename real>
void pack_panels(long panels, long depth, long columns, const real *from, long row_stride,
                 long column_stride, real *to, long distance) {
  const long together = 8;
  const long whole = column_stride == 1 ? std::min(panels, columns / PANEL<real>) : 0;
  for (long first = 0; first < whole; first += together)
    for (long k = 0; k < depth; k++)
      for (long p = first; p < std::min(whole, first + together); p++)
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

// ---- LSTM ----

// The recurrent weights with the four gates of a vector's width of units side by side, so that
// all that the gates' arithmetic needs comes out of one tile: [panel][row][gate][unit].
template <typename real>
void pack_gates(long units, const real *const *W_hid, real *to) {
  const Share share(divide_up(units, LANES<real>));
  for (long p = share.begin; p < share.end; p++)
    for (long g = 0; g < GATES; g++)
      pack(units, units - p * LANES<real>, W_hid[g] + p * LANES<real>, units, 1L,
           to + p * units * PANEL<real> + g * LANES<real>);
}

template <typename real>
int lstm_forward(long steps, long sentences, long inputs, long units, const int32_t *indices,
                 const real *dense, const real *const *W_in, const real *const *W_hid,
                 const real *const *b, const real *const *peepholes, const real *cell_init,
                 const real *hid_init, real *gates, real *cells, real *hidden) {
  const long width = GATES * units, groups = divide_up(units, LANES<real>);
  const long recurrent = groups * units * PANEL<real>;
  const long input = dense ? packed_size<real>(inputs, units) : 0;
  real *const packed = workspace<real>(recurrent + GATES * input);
  if (packed == nullptr) return 1;
#pragma omp parallel num_threads(threads_for_rows(sentences))
  {
    const Share share(sentences);
    pack_gates(units, W_hid, packed);
    if (dense)
      for (long g = 0; g < GATES; g++)
        pack_matrix(1L, inputs, units, &W_in[g], units, 1L, packed + recurrent + g * input);
#pragma omp barrier
    for (long t = 0; t < steps; t++) {
      real *const gates_now = gates + t * sentences * width;
      real *const cells_now = cells + t * sentences * units;
      real *const hidden_now = hidden + t * sentences * units;
      const real *const cells_before = t ? cells_now - sentences * units : cell_init;
      const real *const hidden_before = t ? hidden_now - sentences * units : hid_init;
      const long ld_before = t ? units : 0;
      if (dense)
        for (long g = 0; g < GATES; g++)
          multiply(share.begin, share.end, units, inputs, dense + t * sentences * inputs, inputs,
                   packed + recurrent + g * input, b[g], 0L, gates_now + g * units, width);
      for (long p = 0; p < groups; p++) {
        const long unit = p * LANES<real>, count = units - unit;
        vector<real> bias[GATES] = {}, peephole[3] = {};
        if (!dense)
          for (long g = 0; g < GATES; g++) bias[g] = load(b[g] + unit, count);
        if (peepholes)
          for (long g = 0; g < 3; g++) peephole[g] = load(peepholes[g] + unit, count);
        for_tiles(share.begin, share.end, [&](long row, auto constant) {
          constexpr int M = decltype(constant)::value;
          Sums<M, real> sums;
          for (int r = 0; r < M; r++)
            for (int g = 0; g < GATES; g++) {
              const real *from =
                  dense ? gates_now + (row + r) * width + g * units
                        : W_in[g] + indices[t * sentences + row + r] * units;
              sums[r][g] = bias[g] + load(from + unit, count);
            }
          // The next panel's part of the same rows of W_in: chosen by words, nobody foresees them.
          if (!dense)
            for (int r = 0; r < M; r++)
              for (int g = 0; g < GATES; g++)
                __builtin_prefetch(W_in[g] + indices[t * sentences + row + r] * units + unit +
                                   LANES<real>);
          multiply_add<false, M>(units, hidden_before + row * ld_before, ld_before,
                                 packed + p * units * PANEL<real>, sums);
          for (int r = 0; r < M; r++) {
            const vector<real> before = load(cells_before + (row + r) * ld_before + unit, count);
            const vector<real> in = logistic(sums[r][IN] + peephole[0] * before);
            const vector<real> forget = logistic(sums[r][FORGET] + peephole[1] * before);
            const vector<real> candidate = hyperbolic_tangent(sums[r][CELL]);
            const vector<real> cell = forget * before + in * candidate;
            const vector<real> out = logistic(sums[r][OUT] + peephole[2] * cell);
            real *const gate = gates_now + (row + r) * width + unit;
            store(gate + IN * units, in, count);
            store(gate + FORGET * units, forget, count);
            store(gate + CELL * units, candidate, count);
            store(gate + OUT * units, out, count);
            store(cells_now + (row + r) * units + unit, cell, count);
            store(hidden_now + (row + r) * units + unit, out * hyperbolic_tangent(cell), count);
          }
        });
      }
    }
  }
  return 0;
}

// Sums over sentences and steps that a thread collects, in units: those of the gates' gradients
// after and at the first step, of the peepholes' gradients, of the initial cell's.
enum { LATER_STEPS = 0, FIRST_STEP = 4, PEEPHOLES = 8, INITIAL_CELL = 11, SUMS = 12 };

// One step back through the gates, for the sentences from `begin` to `end`. `d_cells` holds the
// gradient that comes from the step after, and receives the one that goes to the step before.
template <typename real>
void gates_backward(long begin, long end, long units, real clip, const real *const *peepholes,
                    const real *gates, const real *cells, const real *cells_before,
                    long ld_before, const real *d_hidden, real *d_gates, real *d_cells,
                    real *gate_sums, real *peephole_sums) {
  const vector<real> most = vector<real>{} + clip, least = -most;
  for (long row = begin; row < end; row++)
    for (long unit = 0; unit < units; unit += LANES<real>) {
      const long count = units - unit;
      const real *gate = gates + row * GATES * units + unit;
      const vector<real> in = load(gate + IN * units, count);
      const vector<real> forget = load(gate + FORGET * units, count);
      const vector<real> candidate = load(gate + CELL * units, count);
      const vector<real> out = load(gate + OUT * units, count);
      const vector<real> cell = load(cells + row * units + unit, count);
      const vector<real> before = load(cells_before + row * ld_before + unit, count);
      const vector<real> d_hid = load(d_hidden + row * units + unit, count);
      const vector<real> squashed = hyperbolic_tangent(cell);
      vector<real> peephole[3] = {};
      if (peepholes)
        for (long g = 0; g < 3; g++) peephole[g] = load(peepholes[g] + unit, count);

      vector<real> d[GATES];
      d[OUT] = d_hid * squashed * out * (1 - out);
      const vector<real> d_cell = load(d_cells + row * units + unit, count) +
                                  d_hid * out * (1 - squashed * squashed) +
                                  d[OUT] * peephole[2];
      d[IN] = d_cell * candidate * in * (1 - in);
      d[FORGET] = d_cell * before * forget * (1 - forget);
      d[CELL] = d_cell * in * (1 - candidate * candidate);
      store(d_cells + row * units + unit,
            d_cell * forget + d[IN] * peephole[0] + d[FORGET] * peephole[1], count);

      const vector<real> d_peephole[3] = {d[IN] * before, d[FORGET] * before, d[OUT] * cell};
      for (long g = 0; g < 3; g++) {
        real *sum = peephole_sums + g * units + unit;
        store(sum, load(sum, count) + d_peephole[g], count);
      }
      for (long g = 0; g < GATES; g++) {
        // As in Lasagne: what goes to the peepholes and the cell is not clipped.
        vector<real> clipped = d[g] > most ? most : d[g];
        clipped = clipped < least ? least : clipped;
        real *sum = gate_sums + g * units + unit;
        store(sum, load(sum, count) + clipped, count);
        store(d_gates + (row * GATES + g) * units + unit, clipped, count);
      }
    }
}

// Gradients for all but the weights, which `lstm_weights` makes from `d_gates`.
template <typename real>
int lstm_backward(long steps, long sentences, long inputs, long units, const real *const *W_in,
                  const real *const *W_hid, const real *const *peepholes, const real *cell_init,
                  real clip, const real *gates, const real *cells, const real *d_hidden,
                  real *d_gates, real *d_dense, real *d_b, real *d_peepholes, real *d_cell_init,
                  real *d_hid_init) {
  const long width = GATES * units, area = sentences * units;
  const int threads = threads_for_rows(sentences);
  const long recurrent = packed_size<real>(width, units);
  const long input = d_dense ? packed_size<real>(width, inputs) : 0;
  const long states = 2 * area + SUMS * units * threads;
  real *const work = workspace<real>(recurrent + input + states);
  if (work == nullptr) return 1;
  real *const packed = work, *const packed_input = packed + recurrent;
  real *const d_hidden_now = packed_input + input, *const d_cells = d_hidden_now + area;
  real *const all_sums = d_cells + area;
  std::fill_n(d_cells, area + SUMS * units * threads, real(0));
#pragma omp parallel num_threads(threads)
  {
    const Share share(sentences);
    real *const sums = all_sums + thread() * SUMS * units;
    pack_matrix((long)GATES, units, units, W_hid, 1L, units, packed);
    if (d_dense) pack_matrix((long)GATES, units, inputs, W_in, 1L, units, packed_input);
#pragma omp barrier
    for (long t = steps - 1; t >= 0; t--) {
      real *const d_gates_now = d_gates + t * sentences * width;
      gates_backward(share.begin, share.end, units, clip, peepholes,
                     gates + t * sentences * width, cells + t * area,
                     t ? cells + (t - 1) * area : cell_init, t ? units : 0,
                     t == steps - 1 ? d_hidden + t * area : d_hidden_now, d_gates_now, d_cells,
                     sums + (t ? LATER_STEPS : FIRST_STEP) * units, sums + PEEPHOLES * units);
      if (t)
        multiply(share.begin, share.end, units, width, d_gates_now, width, packed,
                 d_hidden + (t - 1) * area, units, d_hidden_now, units);
      if (d_dense == nullptr) continue;
      real *const d_dense_now = d_dense + t * sentences * inputs;
      std::fill(d_dense_now + share.begin * inputs, d_dense_now + share.end * inputs, real(0));
      multiply(share.begin, share.end, inputs, width, d_gates_now, width, packed_input,
               d_dense_now, inputs, d_dense_now, inputs);
    }
    for (long row = share.begin; row < share.end; row++)
      for (long n = 0; n < units; n++) sums[INITIAL_CELL * units + n] += d_cells[row * units + n];
  }
  for (int other = 1; other < threads; other++)
    for (long n = 0; n < SUMS * units; n++) all_sums[n] += all_sums[other * SUMS * units + n];
  const real *const first = all_sums + FIRST_STEP * units;
  for (long n = 0; n < width; n++) d_b[n] = all_sums[LATER_STEPS * units + n] + first[n];
  std::copy_n(all_sums + PEEPHOLES * units, 3 * units, d_peepholes);
  std::copy_n(all_sums + INITIAL_CELL * units, units, d_cell_init);
  // The initial hidden state is one row for all sentences.
  std::fill_n(d_hid_init, units, real(0));
  multiply(0L, 1L, units, width, first, 0L, packed, d_hid_init, 0L, d_hid_init, 0L);
  return 0;
}

// Adds the gradients for the weights to `d_W_in` and `d_W_hid`.
template <typename real>
int lstm_weights(long steps, long sentences, long inputs, long units, const int32_t *indices,
                 const real *dense, const real *hid_init, const real *hidden,
                 const real *d_gates, real *const *d_W_in, real *const *d_W_hid) {
  const long width = GATES * units, rows = steps * sentences;
  const long products = transposed_size<real>(rows, std::max(units, dense ? inputs : 0));
  real *const work = workspace<real>(std::max(products, width));
  if (work == nullptr) return 1;
#pragma omp parallel num_threads(threads_for_rows(rows))
  {
    multiply_transposed(rows - sentences, units, units, (long)GATES, hidden, units,
                        d_gates + width * sentences, width, d_W_hid, (real *)nullptr, work);
    // Each thread adds its own columns of all rows, for a row may occur many times.
    const Share vectors(divide_up(units, LANES<real>));
    const long begin = vectors.begin * LANES<real>;
    const long end = std::min(units, vectors.end * LANES<real>);
    // The initial hidden state is one row for all sentences, often of zeros.
    for (long g = 0; g < GATES; g++) {
      real *const sum = work + g * units;
      std::fill(sum + begin, sum + end, real(0));
      for (long row = 0; row < sentences; row++)
        for (long n = begin; n < end; n++) sum[n] += d_gates[row * width + g * units + n];
      for (long m = 0; m < units; m++)
        for (long n = begin; hid_init[m] != 0 && n < end; n++)
          d_W_hid[g][m * units + n] += hid_init[m] * sum[n];
    }
#pragma omp barrier
    if (dense)
      multiply_transposed(rows, inputs, units, (long)GATES, dense, inputs, d_gates, width, d_W_in,
                          (real *)nullptr, work);
    else
      for (long row = 0; row < rows; row++)
        for (long g = 0; g < GATES; g++) {
          real *const to = d_W_in[g] + indices[row] * units;
          const real *const from = d_gates + row * width + g * units;
          for (long n = begin; n < end; n++) to[n] += from[n];
        }
  }
  return 0;
}

// ---- softmax and cross-entropy ----

// Rows that a thread takes at once: equal parts, enough for all threads.
inline long rows_at_once(long rows) {
  return block_size(rows, std::min((long)CHUNK, divide_up(rows, available_threads())));
}

// Turns logits into probabilities less the one-hot target; returns -log p(target).
template <typename real> real softmax_row(long columns, long target, real *row) {
  vector<real> most = vector<real>{} + row[0];
  long n = 0;
  for (; n + LANES<real> <= columns; n += LANES<real>) {
    const vector<real> x = load(row + n);
    most = x > most ? x : most;
  }
  real top = row[0];
  for (long j = 0; j < LANES<real>; j++) top = most[j] > top ? most[j] : top;
  for (; n < columns; n++) top = row[n] > top ? row[n] : top;

  const real logit = row[target] - top;
  vector<real> totals = {};
  for (n = 0; n < columns; n += LANES<real>) {
    vector<real> x = exponential(load(row + n, columns - n) - top);
    store(row + n, x, columns - n);
    for (long j = columns - n; j < LANES<real>; j++) x[j] = 0;
    totals += x;
  }
  real total = 0;
  for (long j = 0; j < LANES<real>; j++) total += totals[j];

  const real scale = 1 / total;
  for (n = 0; n < columns; n += LANES<real>)
    store(row + n, load(row + n, columns - n) * scale, columns - n);
  row[target] -= 1;
  return std::log(total) - logit;
}

template <typename real>
int softmax_forward(long rows, long units, long columns, const real *hidden, const real *W,
                    const real *b, const int32_t *targets, real *losses, real *d_logits) {
  real *const packed = workspace<real>(packed_size<real>(units, columns));
  if (packed == nullptr) return 1;
  const long block = rows_at_once(rows);
#pragma omp parallel num_threads(threads_for_rows(rows))
  {
    pack_matrix(1L, units, columns, &W, columns, 1L, packed);
#pragma omp barrier
#pragma omp for schedule(dynamic)
    for (long chunk = 0; chunk < rows; chunk += block) {
      const long end = std::min(rows, chunk + block);
      multiply(chunk, end, columns, units, hidden, units, packed, b, 0L, d_logits, columns);
      for (long row = chunk; row < end; row++)
        losses[row] = softmax_row(columns, (long)targets[row], d_logits + row * columns);
    }
  }
  return 0;
}

template <typename real>
int softmax_backward(long rows, long units, long columns, const real *W, const real *d_logits,
                     real *d_hidden) {
  real *const packed = workspace<real>(packed_size<real>(columns, units));
  if (packed == nullptr) return 1;
  const long block = rows_at_once(rows);
#pragma omp parallel num_threads(threads_for_rows(rows))
  {
    pack_matrix(1L, columns, units, &W, 1L, columns, packed);
#pragma omp barrier
#pragma omp for schedule(dynamic)
    for (long chunk = 0; chunk < rows; chunk += block) {
      const long end = std::min(rows, chunk + block);
      std::fill(d_hidden + chunk * units, d_hidden + end * units, real(0));
      multiply(chunk, end, units, columns, d_logits, columns, packed, d_hidden, units, d_hidden,
               units);
    }
  }
  return 0;
}

// Adds the gradients for the weights to `d_W` and `d_b`.
template <typename real>
int softmax_weights(long rows, long units, long columns, const real *hidden,
                    const real *d_logits, real *d_W, real *d_b) {
  real *const work = workspace<real>(transposed_size<real>(rows, units));
  if (work == nullptr) return 1;
#pragma omp parallel num_threads(threads_for_rows(rows))
  multiply_transposed(rows, units, columns, 1L, hidden, units, d_logits, columns, &d_W, d_b, work);
  return 0;
}

}  // namespace

// An exported function has the name of its template and of its type.
#define EXPORT(name, real, parameters, arguments) \
  extern "C" int name##_##real parameters { return name<real> arguments; }

#define EXPORT_ALL(real)                                                                         \
  EXPORT(lstm_forward, real,                                                                     \
         (long steps, long sentences, long inputs, long units, const int32_t *indices,           \
          const real *dense, const real *const *W_in, const real *const *W_hid,                  \
          const real *const *b, const real *const *peepholes, const real *cell_init,             \
          const real *hid_init, real *gates, real *cells, real *hidden),                         \
         (steps, sentences, inputs, units, indices, dense, W_in, W_hid, b, peepholes, cell_init, \
          hid_init, gates, cells, hidden))                                                       \
  EXPORT(lstm_backward, real,                                                                    \
         (long steps, long sentences, long inputs, long units, const real *const *W_in,          \
          const real *const *W_hid, const real *const *peepholes, const real *cell_init,         \
          const double *clip, const real *gates, const real *cells, const real *d_hidden,        \
          real *d_gates, real *d_dense, real *d_b, real *d_peepholes, real *d_cell_init,         \
          real *d_hid_init),                                                                     \
         (steps, sentences, inputs, units, W_in, W_hid, peepholes, cell_init, (real)*clip,       \
          gates, cells, d_hidden, d_gates, d_dense, d_b, d_peepholes, d_cell_init, d_hid_init))  \
  EXPORT(lstm_weights, real,                                                                     \
         (long steps, long sentences, long inputs, long units, const int32_t *indices,           \
          const real *dense, const real *hid_init, const real *hidden, const real *d_gates,      \
          real *const *d_W_in, real *const *d_W_hid),                                            \
         (steps, sentences, inputs, units, indices, dense, hid_init, hidden, d_gates, d_W_in,    \
          d_W_hid))                                                                              \
  EXPORT(softmax_forward, real,                                                                  \
         (long rows, long units, long columns, const real *hidden, const real *W, const real *b, \
          const int32_t *targets, real *losses, real *d_logits),                                 \
         (rows, units, columns, hidden, W, b, targets, losses, d_logits))                        \
  EXPORT(softmax_backward, real,                                                                 \
         (long rows, long units, long columns, const real *W, const real *d_logits,              \
          real *d_hidden),                                                                       \
         (rows, units, columns, W, d_logits, d_hidden))                                          \
  EXPORT(softmax_weights, real,                                                                  \
         (long rows, long units, long columns, const real *hidden, const real *d_logits,         \
          real *d_W, real *d_b),                                                                 \
         (rows, units, columns, hidden, d_logits, d_W, d_b))

EXPORT_ALL(float)
EXPORT_ALL(double)
