// Dropout, its masks from a generator that is a function of where a number stands.
#pragma once

#include <algorithm>
#include <cstdint>

#include "threads.h"

namespace {

// Philox4x32-10 of J. Salmon, M. Moraes, R. Dror, D. Shaw: Parallel random numbers: as easy as
// 1, 2, 3. SC 2011. `COUNTERS` counters at a time, each word in 64 bits as its products are, so that
// the compiler makes vectors of them; word w of counter n becomes numbers[4 * n + w].
enum { COUNTERS = 16, WORDS = 4, ROUNDS = 10 };
const uint64_t LOW = 0xFFFFFFFFu;

inline void philox(uint32_t first, uint32_t step, uint32_t sentence, uint32_t stream,
                   uint32_t seed, uint32_t update, uint32_t *numbers) {
  uint64_t word[WORDS][COUNTERS];
  for (uint32_t n = 0; n < COUNTERS; n++) {
    word[0][n] = first + n;
    word[1][n] = step;
    word[2][n] = sentence;
    word[3][n] = stream;
  }
  for (int round = 0; round < ROUNDS; round++) {
    for (int n = 0; n < COUNTERS; n++) {
      const uint64_t left = (word[0][n] & LOW) * 0xD2511F53u;
      const uint64_t right = (word[2][n] & LOW) * 0xCD9E8D57u;
      word[0][n] = right >> 32 ^ word[1][n] ^ seed;
      word[1][n] = right & LOW;
      word[2][n] = left >> 32 ^ word[3][n] ^ update;
      word[3][n] = left & LOW;
    }
    seed += 0x9E3779B9u;
    update += 0xBB67AE85u;
  }
  for (int n = 0; n < COUNTERS; n++)
    for (int w = 0; w < WORDS; w++) numbers[WORDS * n + w] = (uint32_t)word[w][n];
}

// result = values * scale where the number of the place is below `keep`, else 0. A place's counter
// is (unit / 4, step, sentence, stream), its word unit % 4; `key` holds seed, update, the number of
// the first sentence, stream and `keep`.
template <typename real>
int dropout(long steps, long sentences, long units, const real *values, const uint32_t *key,
            real scale, real *result) {
  const long rows = steps * sentences;
#pragma omp parallel for schedule(static) num_threads(threads_for_rows(rows))
  for (long row = 0; row < rows; row++) {
    const uint32_t step = row / sentences, sentence = key[2] + row % sentences;
    for (long unit = 0; unit < units; unit += WORDS * COUNTERS) {
      uint32_t numbers[WORDS * COUNTERS];
      philox(unit / WORDS, step, sentence, key[3], key[0], key[1], numbers);
      const real *const from = values + row * units + unit;
      real *const to = result + row * units + unit;
      const uint32_t keep = key[4];
      const long count = std::min(units - unit, (long)(WORDS * COUNTERS));
      for (long n = 0; n < count; n++) to[n] = numbers[n] < keep ? from[n] * scale : real(0);
    }
  }
  return 0;
}

}  // namespace
