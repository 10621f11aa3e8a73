// The softmax layer with its cross-entropy: forward alone, or with all gradients.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "products.h"

namespace {

// Rows that a thread takes at once: equal parts, as many for one thread as for another.
inline long rows_at_once(long rows) {
  const long threads = threads_for_rows(rows);
  return divide_up(rows, divide_up(divide_up(rows, CHUNK), threads) * threads);
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

// Rows whose logits are there at a time: as many as the products of the weights' gradients take in
// one go.
inline long rows_of_block(long rows) { return block_size(rows, DEPTH / 2); }

template <typename real>
int softmax_forward(long rows, long units, long columns, const real *hidden, const real *W,
                    const real *b, const int32_t *targets, real *losses) {
  const long chunk = rows_at_once(rows), all = packed_size<real>(units, columns);
  real *const packed = workspace<real>(all + available_threads() * chunk * columns);
  if (packed == nullptr) return 1;
#pragma omp parallel num_threads(threads_for_rows(rows))
  {
    real *const logits = packed + all + thread() * chunk * columns;
    pack_matrix(1L, units, columns, &W, columns, 1L, packed);
#pragma omp barrier
#pragma omp for schedule(dynamic)
    for (long first = 0; first < rows; first += chunk) {
      const long count = std::min(chunk, rows - first);
      multiply(0L, count, columns, units, hidden + first * units, units, packed, b, 0L, logits,
               columns);
      for (long row = 0; row < count; row++)
        losses[first + row] =
            softmax_row(columns, (long)targets[first + row], logits + row * columns);
    }
  }
  return 0;
}

// The losses, the gradient for the hidden states, and what is added to `d_W` and `d_b`, block by
// block of rows. `d_losses` are the gradients for the losses.
template <typename real>
int softmax_gradients(long rows, long units, long columns, const real *hidden, const real *W,
                      const real *b, const int32_t *targets, const real *d_losses, real *losses,
                      real *d_hidden, real *d_W, real *d_b) {
  const long block = rows_of_block(rows);
  const long forward = packed_size<real>(units, columns);
  const long backward = packed_size<real>(columns, units);
  const long size = divide_up(block * columns, PANEL<real>) * PANEL<real>;
  real *const packed =
      workspace<real>(forward + backward + size + transposed_size<real>(block, units));
  if (packed == nullptr) return 1;
  real *const transposed = packed + forward, *const logits = transposed + backward;
#pragma omp parallel num_threads(threads_for_rows(rows))
  {
    pack_matrix(1L, units, columns, &W, columns, 1L, packed);
    pack_matrix(1L, columns, units, &W, 1L, columns, transposed);
#pragma omp barrier
    for (long start = 0; start < rows; start += block) {
      const long count = std::min(block, rows - start), chunk = rows_at_once(count);
      const real *const left = hidden + start * units;
      real *const d_left = d_hidden + start * units;
#pragma omp for schedule(dynamic)
      for (long first = 0; first < count; first += chunk) {
        const long end = std::min(count, first + chunk);
        multiply(first, end, columns, units, left, units, packed, b, 0L, logits, columns);
        for (long row = first; row < end; row++) {
          real *const line = logits + row * columns;
          losses[start + row] = softmax_row(columns, (long)targets[start + row], line);
          const real scale = d_losses[start + row];
          if (scale != 1)
            for (long n = 0; n < columns; n++) line[n] *= scale;
        }
        std::fill(d_left + first * units, d_left + end * units, real(0));
        multiply(first, end, units, columns, logits, columns, transposed, d_left, units, d_left,
                 units);
      }
      multiply_transposed(count, units, columns, 1L, left, units, logits, columns, &d_W, d_b,
                          logits + size);
    }
  }
  return 0;
}

}  // namespace
