"""A Theano linker: the compiled graph as it is, each of its operations by PyTorch.

Theano lets a linker decide how an optimized graph is carried out. This one walks through it in
order and calls a PyTorch function for each operation; see `operations`. Shared variables hold
tensors from the first call on, which stay on their device; updates only move references.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import theano
import torch
from theano.compile.mode import Mode
from theano.gof.link import Container, PerformLinker, add_clear_storage, map_storage

from model.engine.on_torch.operations import OPERATIONS, Context
from model.system.errors import UserError

# Rewrites that are for Theano's own C code: they put operations in the graph that PyTorch needs no
# help with. The gradients of weights are still added in place, by their own rewrite.
_FOR_C = ("fusion", "BlasOpt", "c_blas", "make_scipy_blas_destructive", "blas_opt_inplace",
          "c_blas_destructive", "inplace_elemwise_optimizer", "local_inplace_setsubtensor",
          "local_inplace_incsubtensor1", "scanOp_make_inplace")


class TorchLinker(PerformLinker):
    """Carries a graph out on the tensors of a device.

    Parameters
    ----------
    context : Context
    inner : bool
        Whether the function is the body of a loop, whose results stay tensors; those of any other
        are numpy arrays.

    Raises
    ------
    UnknownOperation
        When a function is compiled with an operation that is not in the table.
    """

    def __init__(self, context: Context, inner: bool = False):
        super().__init__()
        self.context = context
        self.inner = inner

    def clone(self, allow_gc=None):
        return TorchLinker(self.context, self.inner)

    def make_all(self, input_storage=None, output_storage=None, storage_map=None):
        graph, context = self.fgraph, replace(self.context, shared={})
        to_tensor = context.tensor
        nodes = self.schedule(graph)
        input_storage, output_storage, storage_map = map_storage(
            graph, nodes, input_storage, output_storage, storage_map)
        steps = []
        for node in nodes:
            inputs = [storage_map[variable] for variable in node.inputs]
            outputs = [storage_map[variable] for variable in node.outputs]
            steps.append((OPERATIONS.get(node)(node, context), inputs, outputs))
        updates = getattr(graph, "update_mapping", None) or {}
        moves = [(storage_map[graph.outputs[output]], storage_map[graph.inputs[into]])
                 for output, into in updates.items()]
        results = [] if self.inner else [
            storage_map[variable] for number, variable in enumerate(graph.outputs)
            if number not in updates]
        given = [storage for variable, storage in storage_map.items() if variable.owner is None]
        kept = {id(storage) for storage in (*given, *output_storage)}
        # What is no longer needed after each step, so that its memory serves the next ones.
        last = {id(storage): n for n, (_, inputs, outputs) in enumerate(steps)
                for storage in (*inputs, *outputs)}
        ends: list[list] = [[] for _ in steps]
        for n, (_, inputs, outputs) in enumerate(steps):
            for storage in {id(s): s for s in (*inputs, *outputs)}.values():
                if last[id(storage)] == n and id(storage) not in kept:
                    ends[n].append(storage)

        def run():
            for storage in given:
                if storage[0] is not None and not isinstance(storage[0], torch.Tensor):
                    storage[0] = to_tensor(storage[0])
            try:
                for (step, inputs, outputs), ended in zip(steps, ends):
                    found = step(*[storage[0] for storage in inputs])
                    for storage, value in zip(outputs, found):
                        storage[0] = value
                    for storage in ended:
                        storage[0] = None
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"the card's memory is full ({str(error).splitlines()[0]}): end what else runs "
                    "there (nvidia-smi shows it), or lower [training] micro_batch_tokens or "
                    "[network] num_units; the next run goes on from the last checkpoint") from None
            values = [source[0] for source, _ in moves]
            for value, (_, target) in zip(values, moves):
                target[0] = value
            for storage in results:
                storage[0] = to_array(storage[0])

        run.need_update_inputs = False
        run.allow_gc = False
        run.storage_map = storage_map
        add_clear_storage(run, [], storage_map)
        return (run, [Container(*pair) for pair in zip(graph.inputs, input_storage)],
                [Container(variable, storage, True)
                 for variable, storage in zip(graph.outputs, output_storage)],
                [run], nodes)


def to_array(value) -> np.ndarray:
    """A numpy array of what a storage or a shared variable holds, if need be a copy."""
    return value.numpy(force=True) if isinstance(value, torch.Tensor) else np.asarray(value)


def mode(context: Context, inner: bool = False) -> Mode:
    """A mode for `theano.function`."""
    optimizer = theano.compile.mode.get_mode("FAST_RUN").provided_optimizer.excluding(*_FOR_C)
    return Mode(linker=TorchLinker(context, inner), optimizer=optimizer)


def compile_inner(inputs: list, outputs: list, context: Context) -> Callable[..., list]:
    """The body of a loop: from tensors to tensors."""
    function = theano.function(inputs, outputs, mode=mode(context, inner=True),
                               on_unused_input="ignore")
    into = [container.storage for container in function.input_storage]
    out = [container.storage for container in function.output_storage]

    def call(*values):
        for storage, value in zip(into, values):
            storage[0] = value
        function.fn()
        return [storage[0] for storage in out]

    return call
