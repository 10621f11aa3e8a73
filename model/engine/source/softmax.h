// The softmax layer with its cross-entropy: forward, backward, and the gradients for its weights.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "products.h"

namespace {

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
