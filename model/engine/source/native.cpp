// LSTM, dropout and softmax layers for the Ops of lstm_op.py, dropout_op.py and softmax_op.py; see
// native.py.
//
// Written with GCC's vector extensions, so that one source serves every processor. BLAS is not
// used: packed once, the recurrent weights serve all steps, the gates' arithmetic starts from
// registers, and each thread takes its own sentences through all steps without waiting for the
// others. On the shapes that occur a general sgemm, with the gates to be computed after it, is
// slower (see docs/performance.md).
//
// All matrices are row-major; `ld` is the distance between rows. Arrays over steps have the axes
// (steps, sentences, units). Gates are in the order in, forget, cell, out everywhere.

#include "dropout.h"
#include "lstm.h"
#include "softmax.h"

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
  EXPORT(dropout, real,                                                                          \
         (long steps, long sentences, long units, const real *values, const uint32_t *key,       \
          const double *scale, real *result),                                                    \
         (steps, sentences, units, values, key, (real)*scale, result))                           \
  EXPORT(softmax_forward, real,                                                                  \
         (long rows, long units, long columns, const real *hidden, const real *W, const real *b, \
          const int32_t *targets, real *losses),                                                 \
         (rows, units, columns, hidden, W, b, targets, losses))                                  \
  EXPORT(softmax_gradients, real,                                                                \
         (long rows, long units, long columns, const real *hidden, const real *W, const real *b, \
          const int32_t *targets, const real *d_losses, real *losses, real *d_hidden, real *d_W, \
          real *d_b),                                                                            \
         (rows, units, columns, hidden, W, b, targets, d_losses, losses, d_hidden, d_W, d_b))

EXPORT_ALL(float)
EXPORT_ALL(double)
