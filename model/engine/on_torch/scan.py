"""Theano's loop on PyTorch's tensors: see `operations`."""

from __future__ import annotations

import torch
from theano.scan_module.scan_op import Scan

from model.engine.on_torch.linker import compile_inner
from model.engine.on_torch.operations import operation


@operation(Scan)
def _scan(node, context):
    """The loop of a `Scan`; its documentation names the kinds of inputs and outputs.

    Those with taps keep their values in buffers along their first axis: a step reads at the taps
    and writes at its place, modulo the buffer's length, for a buffer may be shorter than the loop.
    """
    op = node.op
    step = compile_inner(op.inputs, op.outputs, context)
    buffers_end = op.n_mit_mot + op.n_mit_sot + op.n_sit_sot
    taps = [list(op.tap_array[n]) for n in range(buffers_end)]
    starts = [max(0, -min(offsets)) for offsets in taps] + [0] * op.n_nit_sot
    # Which buffer each output of a step goes to, and at which offset from its place.
    places = [(n, offset) for n in range(op.n_mit_mot) for offset in op.mit_mot_out_slices[n]]
    places += [(n, 0) for n in range(op.n_mit_mot, buffers_end + op.n_nit_sot)]

    def run(steps, *given):
        steps = int(steps)
        sequences, given = given[:op.n_seqs], given[op.n_seqs:]
        buffers = [buffer.clone() for buffer in given[:buffers_end]]
        shared, given = given[buffers_end:][:op.n_shared_outs], given[buffers_end
                                                                      + op.n_shared_outs:]
        lengths = [len(buffer) for buffer in buffers] + [int(n) for n in given[:op.n_nit_sot]]
        others = given[op.n_nit_sot:]
        buffers += [None] * op.n_nit_sot
        done, going = 0, True
        while done < steps and going:
            values = [sequence[done] for sequence in sequences]
            for buffer, length, start, offsets in zip(buffers, lengths, starts, taps):
                values += [buffer[(start + done + offset) % length] for offset in offsets]
            results = step(*values, *shared, *others)
            for (n, offset), result in zip(places, results):
                if buffers[n] is None:
                    buffers[n] = result.new_empty(lengths[n], *result.shape)
                buffers[n][(starts[n] + done + offset) % lengths[n]] = result
            shared = results[len(places):][:op.n_shared_outs]
            if op.as_while:
                going = not bool(results[-1])
            done += 1
        for n in range(op.n_mit_mot, len(buffers)):
            written = starts[n] + done
            if written > lengths[n]:  # the oldest value first
                buffers[n] = torch.roll(buffers[n], -(written % lengths[n]), 0)
            elif op.as_while:
                buffers[n] = buffers[n][:written]
        return [*buffers, *shared]

    return run
