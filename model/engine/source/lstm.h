// The LSTM layer over all steps: forward, backward, and the gradients for its weights.
#pragma once

#include <algorithm>
#include <cstdint>

#include "products.h"

namespace {

enum { GATES = 4, IN = 0, FORGET = 1, CELL = 2, OUT = 3 };

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

// Sums over sentences and steps, in units: those of the gates' gradients after and at the first
// step, of the peepholes' gradients, of the initial cell's.
enum { LATER_STEPS = 0, FIRST_STEP = 4, PEEPHOLES = 8, INITIAL_CELL = 11, SUMS = 12 };

// They are collected by blocks of sentences, and the blocks' sums are added in their order: so the
// totals do not depend on the number of threads. The blocks fall to most such numbers in equal parts.
enum { BLOCKS = 48 };

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
  const long blocks = std::min(sentences, (long)BLOCKS), size = SUMS * units;
  const long recurrent = packed_size<real>(width, units);
  const long input = d_dense ? packed_size<real>(width, inputs) : 0;
  const long states = 2 * area + size * blocks;
  real *const work = workspace<real>(recurrent + input + states);
  if (work == nullptr) return 1;
  real *const packed = work, *const packed_input = packed + recurrent;
  real *const d_hidden_now = packed_input + input, *const d_cells = d_hidden_now + area;
  real *const sums = d_cells + area;
#pragma omp parallel num_threads(threads_for_rows(sentences))
  {
    const Share own(blocks);
    const auto first_row = [&](long block) { return block * sentences / blocks; };
    const long begin = first_row(own.begin), end = first_row(own.end);
    std::fill(d_cells + begin * units, d_cells + end * units, real(0));
    std::fill(sums + own.begin * size, sums + own.end * size, real(0));
    pack_matrix((long)GATES, units, units, W_hid, 1L, units, packed);
    if (d_dense) pack_matrix((long)GATES, units, inputs, W_in, 1L, units, packed_input);
#pragma omp barrier
    for (long t = steps - 1; t >= 0; t--) {
      real *const d_gates_now = d_gates + t * sentences * width;
      for (long block = own.begin; block < own.end; block++)
        gates_backward(first_row(block), first_row(block + 1), units, clip, peepholes,
                       gates + t * sentences * width, cells + t * area,
                       t ? cells + (t - 1) * area : cell_init, t ? units : 0,
                       t == steps - 1 ? d_hidden + t * area : d_hidden_now, d_gates_now, d_cells,
                       sums + block * size + (t ? LATER_STEPS : FIRST_STEP) * units,
                       sums + block * size + PEEPHOLES * units);
      if (t)
        multiply(begin, end, units, width, d_gates_now, width, packed,
                 d_hidden + (t - 1) * area, units, d_hidden_now, units);
      if (d_dense == nullptr) continue;
      real *const d_dense_now = d_dense + t * sentences * inputs;
      std::fill(d_dense_now + begin * inputs, d_dense_now + end * inputs, real(0));
      multiply(begin, end, inputs, width, d_gates_now, width, packed_input,
               d_dense_now, inputs, d_dense_now, inputs);
    }
    for (long block = own.begin; block < own.end; block++) {
      real *const sum = sums + block * size + INITIAL_CELL * units;
      for (long row = first_row(block); row < first_row(block + 1); row++)
        for (long n = 0; n < units; n++) sum[n] += d_cells[row * units + n];
    }
#pragma omp barrier
    const Share columns(size);
    for (long block = 1; block < blocks; block++)
      for (long n = columns.begin; n < columns.end; n++) sums[n] += sums[block * size + n];
  }
  const real *const first = sums + FIRST_STEP * units;
  for (long n = 0; n < width; n++) d_b[n] = sums[LATER_STEPS * units + n] + first[n];
  std::copy_n(sums + PEEPHOLES * units, 3 * units, d_peepholes);
  std::copy_n(sums + INITIAL_CELL * units, units, d_cell_init);
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

}  // namespace
