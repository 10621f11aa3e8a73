// The softmax layer with its cross-entropy: forward alone, or with all gradients.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>

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

// Weights packed for the products forward and backward, and kept: the micro-batches of a window, and
// all of an evaluation, have the same weights, and to compare them is quicker than to pack them.
template <typename real> class PackedWeights {
 public:
  const real *forward() const { return forward_.get(); }
  const real *backward() const { return backward_.get(); }

  // Makes room for weights of a shape; false where there is no memory.
  bool reserve(long units, long columns, bool backward) {
    if (units != units_ || columns != columns_) *this = PackedWeights();
    units_ = units, columns_ = columns;
    if (!forward_) forward_.reset(allocate(packed_size<real>(units, columns)));
    if (backward && !backward_) backward_.reset(allocate(packed_size<real>(columns, units)));
    return forward_ && (backward_ || !backward);
  }

  // Packs weights of this shape, unless they are there; for a team of threads.
  void pack(const real *W, bool backward) {
#pragma omp single
    same_ = packed_forward_;
    if (packed_forward_ && !is_packed(units_, columns_, W, forward_.get()))
#pragma omp atomic write
      same_ = false;
#pragma omp barrier
    if (!same_) pack_matrix(1L, units_, columns_, &W, columns_, 1L, forward_.get());
    const bool needed = backward && !(same_ && packed_backward_);
    if (needed) pack_matrix(1L, columns_, units_, &W, 1L, columns_, backward_.get());
#pragma omp barrier
#pragma omp single
    packed_forward_ = true, packed_backward_ = backward || (same_ && packed_backward_);
  }

 private:
  using Memory = std::unique_ptr<real, decltype(&std::free)>;
  static real *allocate(long count) {
    return static_cast<real *>(std::aligned_alloc(64, divide_up(count * sizeof(real), 64) * 64));
  }

  long units_ = 0, columns_ = 0;
  Memory forward_{nullptr, &std::free}, backward_{nullptr, &std::free};
  bool packed_forward_ = false, packed_backward_ = false, same_ = false;
};

template <typename real> PackedWeights<real> &packed_weights() {
  static thread_local PackedWeights<real> kept;
  return kept;
}

// Rows whose logits are there at a time: as many as the products of the weights' gradients take in
// one go.
inline long rows_of_block(long rows) { return block_size(rows, DEPTH / 2); }

template <typename real>
int softmax_forward(long rows, long units, long columns, const real *hidden, const real *W,
                    const real *b, const int32_t *targets, real *losses) {
  const long chunk = rows_at_once(rows);
  PackedWeights<real> &weights = packed_weights<real>();
  real *const work = workspace<real>(available_threads() * chunk * columns);
  if (work == nullptr || !weights.reserve(units, columns, false)) return 1;
#pragma omp parallel num_threads(threads_for_rows(rows))
  {
    real *const logits = work + thread() * chunk * columns;
    weights.pack(W, false);
#pragma omp for schedule(dynamic)
    for (long first = 0; first < rows; first += chunk) {
      const long count = std::min(chunk, rows - first);
      multiply(0L, count, columns, units, hidden + first * units, units, weights.forward(), b, 0L,
               logits, columns);
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
  const long size = divide_up(block * columns, PANEL<real>) * PANEL<real>;
  PackedWeights<real> &weights = packed_weights<real>();
  real *const logits = workspace<real>(size + transposed_size<real>(block, units));
  if (logits == nullptr || !weights.reserve(units, columns, true)) return 1;
#pragma omp parallel num_threads(threads_for_rows(rows))
  {
    weights.pack(W, true);
    for (long start = 0; start < rows; start += block) {
      const long count = std::min(block, rows - start), chunk = rows_at_once(count);
      const real *const left = hidden + start * units;
      real *const d_left = d_hidden + start * units;
#pragma omp for schedule(dynamic)
      for (long first = 0; first < count; first += chunk) {
        const long end = std::min(count, first + chunk);
        multiply(first, end, columns, units, left, units, weights.forward(), b, 0L, logits,
                 columns);
        for (long row = first; row < end; row++) {
          real *const line = logits + row * columns;
          losses[start + row] = softmax_row(columns, (long)targets[start + row], line);
          const real scale = d_losses[start + row];
          if (scale != 1)
            for (long n = 0; n < columns; n++) line[n] *= scale;
        }
        std::fill(d_left + first * units, d_left + end * units, real(0));
        multiply(first, end, units, columns, logits, columns, weights.backward(), d_left, units,
                 d_left, units);
      }
      multiply_transposed(count, units, columns, 1L, left, units, logits, columns, &d_W, d_b,
                          logits + size);
    }
  }
  return 0;
}

}  // namespace
