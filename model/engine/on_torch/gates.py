"""The gates of one LSTM step, forward and back, and dropout, in place on PyTorch's tensors.

Products with weights are not made here: these functions do what lies between them, with one launch
each on a card. PyTorch's dispatcher chooses the form: a Triton kernel (`gate_kernels`) for tensors
on a card, plain PyTorch on the processor, and on a card where Triton is not installed. Under a
`FakeTensorMode` nothing is computed.

All tensors are row-major, float32 or float64, and of one call all of one type and device. Gates are
in the order in, forget, cell, out. The equations are in `model.engine.lstm_op`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

try:
    from model.engine.on_torch import gate_kernels as kernels
except ImportError:  # Triton is not installed.
    kernels = None  # type: ignore[assignment]

# Sentences whose gradients for the peepholes one program adds, and units of a program, by kernel:
# each thread of a warp has four neighbouring numbers, and the programs are small, for a step of a
# few sentences has to fill a card's many processors too.
_ROWS, _BACKWARD_UNITS, _BACKWARD_WARPS = 8, 64, 4
_UNITS, _WARPS = 256, 2
# Random numbers that the plain form makes at a time: enough for all cores, and few megabytes.
_NUMBERS = 2**18
_WORD = 2**32 - 1


def step_forward(gates: Tensor, cells_before: Tensor, peepholes: Tensor | None, cells: Tensor,
                 hidden: Tensor) -> None:
    """One step of an LSTM, from the gates' pre-activations to the hidden state.

    Parameters
    ----------
    gates : Tensor
        (sentences, 4 * units): the pre-activations, with bias and recurrent product; receives the
        activations.
    cells_before : Tensor
        (sentences, units), or (1, units), which is then the same for all sentences.
    peepholes : Tensor or None
        (3, units), from the cell to the gates in, forget and out.
    cells, hidden : Tensor
        (sentences, units), the results.

    Raises
    ------
    ValueError
        When a tensor does not fit the others in shape, type, device or order.
    """
    sentences, units = cells.shape
    _check(cells, ("cells", cells, (sentences, units)), ("gates", gates, (sentences, 4 * units)),
           ("cells_before", cells_before, _before_shape(cells_before, cells)),
           ("peepholes", peepholes, (3, units)), ("hidden", hidden, (sentences, units)))
    _step_forward(gates, cells_before, peepholes, cells, hidden)


def step_backward(gates: Tensor, cells: Tensor, cells_before: Tensor, d_hidden: Tensor,
                  d_hidden_after: Tensor | None, peepholes: Tensor | None, grad_clipping: float,
                  d_cells: Tensor, d_gates: Tensor, peephole_sums: Tensor | None) -> None:
    """One step back, from the gradient for the hidden state to that for the pre-activations.

    Parameters
    ----------
    gates, cells, cells_before, peepholes : Tensor
        As `step_forward` left them.
    d_hidden : Tensor
        (sentences, units), the gradient that comes from above.
    d_hidden_after : Tensor or None
        (sentences, units), that which comes from the step after, to be added.
    grad_clipping : float
        What goes into `d_gates` is clipped to ``[-grad_clipping, grad_clipping]``; 0 or infinity
        for no clipping. The gradients for the peepholes and the cell are not clipped.
    d_cells : Tensor
        (sentences, units): the gradient for the cells from the step after; receives the one for
        `cells_before`, sentence by sentence.
    d_gates : Tensor
        (sentences, 4 * units), the result.
    peephole_sums : Tensor or None
        (`peephole_blocks` of the sentences, 3, units). What the sentences add to the gradient for
        the peepholes is added here, each block of sentences to its own (3, units), so that no
        sum depends on which is done first; the plain form adds all to the first block. The gradient
        is the sum over blocks. None where there are no peepholes.

    Raises
    ------
    ValueError
        When a tensor does not fit the others in shape, type, device or order.
    """
    area = sentences, units = cells.shape
    _check(cells, ("cells", cells, area), ("gates", gates, (sentences, 4 * units)),
           ("cells_before", cells_before, _before_shape(cells_before, cells)),
           ("d_hidden", d_hidden, area), ("d_hidden_after", d_hidden_after, area),
           ("peepholes", peepholes, (3, units)), ("d_cells", d_cells, area),
           ("d_gates", d_gates, (sentences, 4 * units)),
           ("peephole_sums", peephole_sums, (peephole_blocks(sentences), 3, units)))
    if (peepholes is None) != (peephole_sums is None):
        raise ValueError("peepholes and peephole_sums must both be given, or both be None")
    _step_backward(gates, cells, cells_before, d_hidden, d_hidden_after, peepholes,
                   grad_clipping or math.inf, d_cells, d_gates, peephole_sums)


def peephole_blocks(sentences: int) -> int:
    """How many blocks of sentences `step_backward` adds the peepholes' gradients for."""
    return -(-sentences // _ROWS)


def dropout(values: Tensor, key: tuple[int | Tensor, int | Tensor], counter: tuple[int, int],
            keep_below: int, scale: float, result: Tensor) -> None:
    """Values times `scale` where a random number is below `keep_below`, zeros elsewhere.

    The numbers depend on the key, the counter and the place alone, so a gradient that is passed
    with the same key and counter is dropped where the values were.

    Parameters
    ----------
    values : Tensor
        (steps, sentences, units)
    key : tuple
        Seed and update: integers, or int64 tensors without axes on the device of the values,
        which are read there when the kernel runs, so that a CUDA graph can be replayed with others.
    counter : tuple
        Number of the first sentence, and of the stream (which layer's dropout this is): integers.
        Of these as of the key the low 32 bits count.
    keep_below : int
        From 0, which keeps nothing, to 2**32, which keeps all.
    scale : float
    result : Tensor
        (steps, sentences, units); may be `values`.

    Raises
    ------
    ValueError
        When a tensor does not fit the others in shape, type, device or order.

    Notes
    -----
    The numbers are those of Philox4x32-10 [1]_: the counter's words are ``unit // 4``, the step,
    the sentence and the stream; the words of the output belong to four neighbouring units.

    References
    ----------
    .. [1] Salmon, J. K. et al. (2011): Parallel random numbers: as easy as 1, 2, 3. SC '11.
    """
    _check(values, ("values", values, values.shape[:3]), ("result", result, values.shape))
    for word in key:
        if isinstance(word, Tensor) and (word.device != values.device or word.shape
                                         or word.dtype != torch.int64):
            raise ValueError(f"key has {_describe(word)}, expected was an int64 tensor without "
                             f"axes on {values.device}")
    _dropout(values, *key, *counter, keep_below, scale, result)


def _before_shape(cells_before: Tensor, cells: Tensor) -> tuple[int, ...]:
    return (1 if cells_before.shape[0] == 1 else cells.shape[0]), cells.shape[1]


def _check(like: Tensor, *tensors: tuple[str, Tensor | None, tuple[int, ...]]) -> None:
    """Refuse what the kernels, which see addresses only, would read or write wrongly."""
    device, dtype = like.device, like.dtype
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{tensors[0][0]} must be float32 or float64, not {dtype}")
    for name, tensor, shape in tensors:
        if tensor is not None and not (tensor.shape == shape and tensor.dtype == dtype
                                       and tensor.device == device and tensor.is_contiguous()):
            raise ValueError(f"{name} is {_describe(tensor)}, expected was a contiguous tensor of "
                             f"{dtype} {tuple(shape)} on {device}")


def _describe(tensor: Tensor) -> str:
    order = "a contiguous tensor" if tensor.is_contiguous() else "a tensor with gaps"
    return f"{order} of {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"


def _plain_step_forward(gates, cells_before, peepholes, cells, hidden) -> None:
    units = cells.shape[1]
    in_gate, forget, candidate, out = gates.chunk(4, 1)
    if peepholes is not None:
        in_gate.addcmul_(cells_before, peepholes[0])
        forget.addcmul_(cells_before, peepholes[1])
    gates[:, :2 * units].sigmoid_()
    candidate.tanh_()
    torch.mul(forget, cells_before, out=cells).addcmul_(in_gate, candidate)
    if peepholes is not None:
        out.addcmul_(cells, peepholes[2])
    torch.tanh(cells, out=hidden).mul_(out.sigmoid_())


def _plain_step_backward(gates, cells, cells_before, d_hidden, d_hidden_after, peepholes,
                         grad_clipping, d_cells, d_gates, peephole_sums) -> None:
    in_gate, forget, candidate, out = gates.chunk(4, 1)
    d_in, d_forget, d_candidate, d_out = d_gates.chunk(4, 1)
    through_logistic = torch.ops.aten.sigmoid_backward.grad_input
    through_tanh = torch.ops.aten.tanh_backward.grad_input
    if d_hidden_after is not None:
        d_hidden = d_hidden + d_hidden_after
    squashed, work = cells.tanh(), torch.empty_like(cells)
    through_logistic(torch.mul(d_hidden, squashed, out=work), out, grad_input=d_out)
    through_tanh(torch.mul(d_hidden, out, out=work), squashed, grad_input=work)
    d_cells.add_(work)
    if peepholes is not None:
        d_cells.addcmul_(d_out, peepholes[2])
    through_logistic(torch.mul(d_cells, candidate, out=work), in_gate, grad_input=d_in)
    through_logistic(torch.mul(d_cells, cells_before, out=work), forget, grad_input=d_forget)
    through_tanh(torch.mul(d_cells, in_gate, out=work), candidate, grad_input=d_candidate)
    d_cells.mul_(forget)
    if peepholes is not None:
        d_cells.addcmul_(d_in, peepholes[0]).addcmul_(d_forget, peepholes[1])
        for sums, d_gate, cell in zip(peephole_sums[0], (d_in, d_forget, d_out),
                                      (cells_before, cells_before, cells)):
            sums.add_(torch.mul(d_gate, cell, out=work).sum(0))
    if grad_clipping < math.inf:
        d_gates.clamp_(-grad_clipping, grad_clipping)


def _philox(c0, c1, c2, c3, k0, k1) -> tuple:
    """Philox4x32-10 in int64, of broadcast counters and a key of tensors or integers.

    A product of two words fills all 64 bits and may come out negative: the mask takes off what the
    shift has then brought in from the left.
    """
    for _ in range(10):
        product0, product2 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c2 = ((product2 >> 32) & _WORD) ^ c1 ^ k0, ((product0 >> 32) & _WORD) ^ c3 ^ k1
        c1, c3 = product2 & _WORD, product0 & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def _plain_dropout(values, seed, update, first_sentence, stream, keep_below, scale,
                   result) -> None:
    steps, sentences, units = values.shape
    torch.mul(values, scale, out=result)
    step = torch.arange(steps, device=values.device)[:, None, None]
    sentence = torch.arange(sentences, device=values.device)[:, None]
    sentence = (sentence + first_sentence) & _WORD
    group = torch.arange(-(-units // 4), device=values.device)
    at_once = max(1, _NUMBERS // max(1, sentences * units))
    for part, some in zip(result.split(at_once), step.split(at_once)):
        words = _philox(group, some, sentence, stream & _WORD, seed & _WORD, update & _WORD)
        for n, word in enumerate(words):
            mine = part[..., n::4]
            mine.masked_fill_(word[..., :mine.shape[-1]] >= keep_below, 0)


def _launch_step_forward(gates, cells_before, peepholes, cells, hidden) -> None:
    sentences, units = cells.shape
    with torch.cuda.device_of(cells):
        kernels.step_forward[sentences, -(-units // _UNITS)](
            gates, cells_before, peepholes, cells, hidden, units, _before_stride(cells_before),
            BLOCK=_UNITS, num_warps=_WARPS)


def _launch_step_backward(gates, cells, cells_before, d_hidden, d_hidden_after, peepholes,
                          grad_clipping, d_cells, d_gates, peephole_sums) -> None:
    sentences, units = cells.shape
    with torch.cuda.device_of(cells):
        kernels.step_backward[peephole_blocks(sentences), -(-units // _BACKWARD_UNITS)](
            gates, cells, cells_before, d_hidden, d_hidden_after, peepholes, grad_clipping,
            d_cells, d_gates, peephole_sums, sentences, units, _before_stride(cells_before),
            ROWS=_ROWS, BLOCK=_BACKWARD_UNITS, num_warps=_BACKWARD_WARPS)


def _before_stride(cells_before: Tensor) -> int:
    return 0 if cells_before.shape[0] == 1 else cells_before.shape[1]


def _launch_dropout(values, seed, update, first_sentence, stream, keep_below, scale,
                    result) -> None:
    steps, sentences, units = values.shape
    with torch.cuda.device_of(values):
        kernels.dropout[steps * sentences, -(-units // _UNITS)](
            values, seed, update, first_sentence, stream, keep_below, scale, result, sentences,
            units, BLOCK=_UNITS, num_warps=_WARPS)


def _nothing(*arguments) -> None:
    """What a FakeTensorMode runs: results are written in place, there are none to describe."""


def _define(schema: str, plain, launch):
    name = schema.partition("(")[0]
    _LIBRARY.define(f"{schema} -> ()")
    _LIBRARY.impl(name, plain, "CPU")
    _LIBRARY.impl(name, launch if kernels else plain, "CUDA")
    _LIBRARY.impl(name, _nothing, "Meta")
    return getattr(torch.ops.lstm_model, name.partition(".")[0])


_LIBRARY = torch.library.Library("lstm_model", "DEF")
_step_forward = _define(
    "step_forward(Tensor(a!) gates, Tensor cells_before, Tensor? peepholes, Tensor(b!) cells, "
    "Tensor(c!) hidden)", _plain_step_forward, _launch_step_forward).default
_step_backward = _define(
    "step_backward(Tensor gates, Tensor cells, Tensor cells_before, Tensor d_hidden, "
    "Tensor? d_hidden_after, Tensor? peepholes, float grad_clipping, Tensor(a!) d_cells, "
    "Tensor(b!) d_gates, Tensor(c!)? peephole_sums)",
    _plain_step_backward, _launch_step_backward).default
for _seed in ("int", "Tensor"):
    for _update in ("int", "Tensor"):
        _dropout = _define(
            f"dropout.{_seed}_{_update}(Tensor values, {_seed} seed, {_update} update, "
            "int first_sentence, int stream, int keep_below, float scale, Tensor(a!) result)",
            _plain_dropout, _launch_dropout)
