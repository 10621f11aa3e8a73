"""The Triton kernels behind `model.engine.on_torch.gates`, which says what they compute.

All arrays are row-major. A mask cuts off what lies beyond the last unit or sentence; what is read
there is zero, and zeros add nothing to the sums.
"""

import triton
import triton.language as tl


@triton.jit
def logistic(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def hyperbolic_tangent(x):
    """Hyperbolic tangent, of small numbers as exact as of large ones; NaN passes through.

    Below 0.625 it is the eighth convergent of Lambert's continued fraction ``x / (1 + x^2 / (3 +
    x^2 / (5 + ...)))``, written as x less a correction, right to less than 1e-17; from there on
    ``1 - 2 / (exp(2 x) + 1)`` with an exponential that cannot overflow. Both are one division.
    """
    size = tl.abs(x)
    z = x * x
    small = size < 0.625
    power = tl.exp(-2 * size)
    above = tl.where(small, size * z * (((z + 594) * z + 45045) * z + 675675), 2 * power)
    below = tl.where(small, (((z + 630) * z + 51975) * z + 945945) * z + 2027025, 1 + power)
    result = tl.where(small, size, 1.0) - above / below
    return tl.where(x < 0, -result, result)


@triton.jit
def step_forward(gates, cells_before, peepholes, cells, hidden, units, before_stride,
                 BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < units
    gate = gates + row * 4 * units + unit
    before = tl.load(cells_before + row * before_stride + unit, inside, 0)
    in_sum = tl.load(gate, inside, 0)
    forget_sum = tl.load(gate + units, inside, 0)
    candidate = hyperbolic_tangent(tl.load(gate + 2 * units, inside, 0))
    out_sum = tl.load(gate + 3 * units, inside, 0)
    if peepholes is not None:
        in_sum += tl.load(peepholes + unit, inside, 0) * before
        forget_sum += tl.load(peepholes + units + unit, inside, 0) * before
    in_gate = logistic(in_sum)
    forget = logistic(forget_sum)
    cell = forget * before + in_gate * candidate
    if peepholes is not None:
        out_sum += tl.load(peepholes + 2 * units + unit, inside, 0) * cell
    out = logistic(out_sum)
    tl.store(gate, in_gate, inside)
    tl.store(gate + units, forget, inside)
    tl.store(gate + 2 * units, candidate, inside)
    tl.store(gate + 3 * units, out, inside)
    tl.store(cells + row * units + unit, cell, inside)
    tl.store(hidden + row * units + unit, out * hyperbolic_tangent(cell), inside)


@triton.jit
def clip(x, most):
    # Comparisons, unlike a minimum, let not-a-number through.
    x = tl.where(x > most, most, x)
    return tl.where(x < -most, -most, x)


@triton.jit
def step_backward(gates, cells, cells_before, d_hidden, d_hidden_after, peepholes,
                  grad_clipping: tl.float64, d_cells, d_gates, peephole_sums, sentences, units,
                  before_stride, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    unit = column[None, :]
    inside = (row < sentences) & (unit < units)
    at = row * units + unit
    gate = row * 4 * units + unit
    in_gate = tl.load(gates + gate, inside, 0)
    forget = tl.load(gates + gate + units, inside, 0)
    candidate = tl.load(gates + gate + 2 * units, inside, 0)
    out = tl.load(gates + gate + 3 * units, inside, 0)
    cell = tl.load(cells + at, inside, 0)
    before = tl.load(cells_before + row * before_stride + unit, inside, 0)
    d_hid = tl.load(d_hidden + at, inside, 0)
    d_cell = tl.load(d_cells + at, inside, 0)
    if d_hidden_after is not None:
        d_hid += tl.load(d_hidden_after + at, inside, 0)

    squashed = hyperbolic_tangent(cell)
    d_out = d_hid * squashed * out * (1 - out)
    d_cell += d_hid * out * (1 - squashed * squashed)
    if peepholes is not None:
        d_cell += d_out * tl.load(peepholes + 2 * units + unit, unit < units, 0)
    d_in = d_cell * candidate * in_gate * (1 - in_gate)
    d_forget = d_cell * before * forget * (1 - forget)
    d_candidate = d_cell * in_gate * (1 - candidate * candidate)
    d_cell = d_cell * forget
    if peepholes is not None:
        d_cell += d_in * tl.load(peepholes + unit, unit < units, 0)
        d_cell += d_forget * tl.load(peepholes + units + unit, unit < units, 0)
        sums = peephole_sums + tl.program_id(0) * 3 * units + column
        some = column < units
        tl.store(sums, tl.load(sums, some) + tl.sum(d_in * before, 0), some)
        sums += units
        tl.store(sums, tl.load(sums, some) + tl.sum(d_forget * before, 0), some)
        sums += units
        tl.store(sums, tl.load(sums, some) + tl.sum(d_out * cell, 0), some)
    tl.store(d_cells + at, d_cell, inside)

    most = tl.full((), grad_clipping, d_cell.dtype)
    tl.store(d_gates + gate, clip(d_in, most), inside)
    tl.store(d_gates + gate + units, clip(d_forget, most), inside)
    tl.store(d_gates + gate + 2 * units, clip(d_candidate, most), inside)
    tl.store(d_gates + gate + 3 * units, clip(d_out, most), inside)


@triton.jit
def number(given):
    """A number, or what lies at an address, as one of 32 bits."""
    if given.dtype.is_ptr():
        given = tl.load(given)
    return given.to(tl.uint32)


# Unlike sizes, these change from call to call: nothing is compiled for their values.
@triton.jit(do_not_specialize=["seed", "update", "first_sentence", "stream", "keep_below"])
def dropout(values, seed, update, first_sentence: tl.int64, stream: tl.int64,
            keep_below: tl.int64, scale: tl.float64, result, sentences, units,
            BLOCK: tl.constexpr):
    row = tl.program_id(0)
    group = tl.program_id(1) * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
    first, second, third, fourth = tl.philox_impl(
        group.to(tl.uint32), number(row // sentences), number(first_sentence + row % sentences),
        number(stream), number(seed), number(update))
    # Word after word of a group, then of the next, as the units lie.
    words = tl.interleave(tl.interleave(first, third), tl.interleave(second, fourth))
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = row.to(tl.int64) * units + unit
    value = tl.load(values + at, unit < units, 0)
    kept = value * tl.full((), scale, value.dtype)
    tl.store(result + at, tl.where(words.to(tl.int64) < keep_below, kept, 0), unit < units)
