"""The project's own operations on PyTorch's tensors: see `operations`.

What they compute is told in `model.engine.lstm_op`, `softmax_op` and `dropout_op`. As there, the
products with the recurrent weights are made step by step, with all gates side by side, and those
for the weights' gradients at once for all steps, added to the accumulators in place.
"""

from __future__ import annotations

import torch

from model.engine.dropout_op import Dropout
from model.engine.lstm_op import LSTMGradient, LSTMSequence, LSTMWeightsGradient
from model.engine.on_torch import gates as kernels
from model.engine.on_torch.operations import Context, operation
from model.engine.softmax_op import SoftmaxCrossEntropy, SoftmaxGradients

GATES = 4
# Numbers of the logits that are there at a time.
LOGITS = 1 << 25


class _SideBySide:
    """Some weights in one tensor, made anew only when one of them is another than before."""

    def __init__(self, context: Context):
        self._context = context
        self._parts: list[tuple[torch.Tensor, int]] = []
        self._whole = torch.empty(0)

    @classmethod
    def of(cls, variables: list, context: Context) -> _SideBySide:
        """The one of these weights of a graph, forward and back."""
        return context.shared.setdefault(tuple(variables), cls(context))

    def __call__(self, parts: list[torch.Tensor]) -> torch.Tensor:
        known = self._parts
        if len(known) != len(parts) or any(
                part is not before or part._version != version
                for part, (before, version) in zip(parts, known)):
            self._whole = self._context.operand(torch.cat(parts, dim=-1))
            self._parts = [(part, part._version) for part in parts]
        return self._whole


def _check_indices(indices: torch.Tensor, count: int, name: str) -> None:
    """On the processor; on a card an index that is wrong ends the program."""
    if indices.device.type == "cpu" and indices.numel():
        least, most = int(indices.min()), int(indices.max())
        if not 0 <= least <= most < count:
            raise IndexError(f"{name} must be from 0 to {count - 1}, but are from {least} to "
                             f"{most}")


@operation(LSTMSequence)
def _lstm_sequence(node, context):
    op = node.op
    all_inputs = _SideBySide.of(node.inputs[1:5], context)
    all_recurrent = _SideBySide.of(node.inputs[5:9], context)

    def run(*given):
        inputs, W_in, W_hid, b, peepholes, (cell_init, hid_init) = op.split(list(given))
        steps, sentences = inputs.shape[:2]
        (rows, units), bias = W_in[0].shape, torch.cat(b)
        recurrent = all_recurrent(W_hid)
        if inputs.ndim == 2:
            _check_indices(inputs, rows, "inputs")
            flat = inputs.reshape(-1).to(torch.int64)
            gates = torch.cat([weights.index_select(0, flat) for weights in W_in], dim=1)
        else:
            gates = context.product(inputs.reshape(-1, rows), all_inputs(W_in))
        gates = gates.add_(bias).view(steps, sentences, GATES * units)
        hidden, cells = (gates.new_empty(steps, sentences, units) for _ in range(2))
        peephole = torch.stack(peepholes) if peepholes else None
        cell_before, hidden_before = cell_init, hid_init.expand(sentences, units)
        for gate, cell, state in zip(gates.unbind(), cells.unbind(), hidden.unbind()):
            context.add_product(gate, context.operand(hidden_before), recurrent)
            kernels.step_forward(gate, cell_before, peephole, cell, state)
            cell_before, hidden_before = cell, state
        return [hidden, cells, gates]

    return run


@operation(LSTMGradient)
def _lstm_gradient(node, context):
    op = node.op
    all_inputs = _SideBySide.of(node.inputs[:4], context)
    all_recurrent = _SideBySide.of(node.inputs[4:8], context)

    def run(*given):
        W_in, W_hid, peepholes = list(given[:4]), list(given[4:8]), given[8:-4]
        cell_init, cells, gates, d_hidden = given[-4:]
        steps, sentences, units = cells.shape
        recurrent = all_recurrent(W_hid).T
        d_hidden = d_hidden.contiguous()
        d_gates, d_cells = torch.empty_like(gates), cells.new_zeros(sentences, units)
        peephole = torch.stack(peepholes) if peepholes else None
        sums = cells.new_zeros(kernels.peephole_blocks(sentences), 3, units) if peepholes else None
        after = None
        cell_before = [cell_init, *cells.unbind()]
        every_step = zip(gates.unbind(), cells.unbind(), cell_before, d_hidden.unbind(),
                         d_gates.unbind())
        for gate, cell, before, from_above, d_gate in reversed(list(every_step)):
            kernels.step_backward(gate, cell, before, from_above, after, peephole,
                                  op.grad_clipping, d_cells, d_gate, sums)
            after = context.product(d_gate, recurrent)
        flat = d_gates.view(-1, GATES * units)
        results = [
            d_gates, flat.sum(0).view(GATES, units),
            cells.new_zeros(3, units) if sums is None else sums.sum(0),
            d_cells.sum(0, keepdim=True), after.sum(0, keepdim=True)]
        if op.dense:
            d_inputs = context.product(flat, all_inputs(W_in).T)
            results.append(d_inputs.view(steps, sentences, -1))
        return results

    return run


def _accumulators(node, given: tuple) -> tuple[list, list]:
    """Tensors to add the gradients for the weights to, and the other inputs."""
    op, count = node.op, len(node.op.accumulated)
    others = list(given[count:])
    known = {n: value if op.in_place else value.clone()
             for n, value in zip(op.accumulated, given)}
    return [known[n] if n in known else torch.zeros_like(weight)
            for n, weight in enumerate(op.weights(others))], others


@operation(LSTMWeightsGradient)
def _lstm_weights_gradient(node, context):
    def run(*given):
        sums, others = _accumulators(node, given)
        inputs, hid_init, hidden, d_gates = others[8:]
        steps, sentences, units = hidden.shape
        flat = d_gates.view(-1, GATES * units)
        by_gate = [context.operand(part) for part in flat.split(units, dim=1)]
        before = torch.cat([hid_init.expand(1, sentences, units),
                            hidden.narrow(0, 0, steps - 1)])
        before = context.operand(before.view(-1, units).T)
        for total, part in zip(sums[GATES:], by_gate):
            context.add_product(total, before, part)
        if inputs.ndim == 2:
            rows = inputs.reshape(-1).to(torch.int64)
            for total, part in zip(sums, flat.split(units, dim=1)):
                total.index_add_(0, rows, part)
        else:
            transposed = context.operand(inputs.reshape(-1, inputs.shape[2]).T)
            for total, part in zip(sums, by_gate):
                context.add_product(total, transposed, part)
        return sums

    return run


def _softmax(context, hidden, W, b, targets):
    """For a block of rows after another: losses, and what makes d_logits."""
    _check_indices(targets, W.shape[1], "targets")
    block = _block(W)
    for some, its_targets in zip(hidden.split(block), targets.split(block)):
        logits = context.product(some, W).add_(b)
        normaliser = logits.logsumexp(dim=1, keepdim=True)
        column = its_targets.to(torch.int64).unsqueeze(1)
        losses = (normaliser - logits.gather(1, column)).squeeze(1)

        def gradient(logits=logits, normaliser=normaliser, column=column):
            d_logits = logits.sub_(normaliser).exp_()
            return d_logits.scatter_add_(
                1, column, d_logits.new_full((1, 1), -1).expand(column.shape))

        yield losses, gradient


def _block(W):
    """So many rows have their logits at a time."""
    return max(1, LOGITS // W.shape[1])


@operation(SoftmaxCrossEntropy)
def _softmax_crossentropy(node, context):
    def run(*given):
        losses = [losses for losses, _ in _softmax(context, *given)]
        return [torch.cat(losses) if losses else given[0].new_empty(0)]

    return run


@operation(SoftmaxGradients)
def _softmax_gradients(node, context):
    def run(*given):
        (d_W, d_b), (W, b, hidden, targets, d_losses) = _accumulators(node, given)
        transposed, of_all = W.T, []
        for (losses, gradient), its_hidden, its_d_losses in zip(
                _softmax(context, hidden, W, b, targets), hidden.split(_block(W)),
                d_losses.split(_block(W))):
            d_logits = gradient().mul_(its_d_losses.unsqueeze(1))
            of_all.append((context.product(d_logits, transposed), losses))
            context.add_product(d_W, context.operand(its_hidden.T), context.operand(d_logits))
            d_b.add_(d_logits.sum(0))
        return [d_W, d_b, *(map(torch.cat, zip(*of_all)))]

    return run


@operation(Dropout)
def _dropout(node, context):
    op = node.op

    def run(values, update, sentence):
        values = values.contiguous()
        result = torch.empty_like(values)
        kernels.dropout(values, (op.seed, int(update)), (int(sentence), op.stream), op.keep_below,
                        op.scale, result)
        return [result]

    return run
