"""Models in formats that other programs read: ONNX and safetensors.

With both go, as metadata, texts in JSON: ``vocabulary``, the list of words whose places are their
indices; ``tokenization``, how text is split into words; and ``network``, what it looks like.
docs/using.md lists names and shapes.

The recurrence is written out, with ONNX's Scan, and not left to its LSTM operator: that one takes
vectors and multiplies them with its input weights, where the inputs here are words, which choose
rows of them.

References
----------
Open Neural Network Exchange, operators of version 17: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.checkpoint import Checkpoint
from model.configuration import GATES, NetworkConfig
from model.inference import check_parameters
from model.system.errors import UserError
from model.system.files import publish, to_json

if TYPE_CHECKING:
    import onnx

_OPERATORS = 17
_IR_VERSION = 8  # of the same time
_PROTOBUF_BYTES = 2**31 - 2**20  # a message can be no larger, and the graph takes some itself


def export(checkpoint: Checkpoint, format: str, path: str | os.PathLike) -> list[Path]:
    """Publish a model in another format.

    Parameters
    ----------
    checkpoint : Checkpoint
    format : {"onnx", "safetensors"}
    path : path
        Of the file. ONNX is two: of whole sentences, and beside it of a step, whose name has
        ``.step`` before its suffix.

    Returns
    -------
    list of path
        The files.

    Raises
    ------
    ModuleNotFoundError
        When the package for the format is not installed.
    UserError
        When the weights are not those of the network, are too many for the format, or cannot be
        written.
    """
    config, path = check_parameters(checkpoint), Path(path)
    metadata = {"vocabulary": to_json(list(checkpoint.vocabulary.words), ensure_ascii=False),
                "tokenization": to_json(checkpoint.settings["tokenization"]),
                "network": to_json(checkpoint.settings["network"])}
    if format == "safetensors":
        from safetensors.numpy import save_file

        with publish(path) as temporary:
            save_file(checkpoint.parameters, temporary, metadata)
        return [path]
    size = sum(value.nbytes for value in checkpoint.parameters.values())
    if size > _PROTOBUF_BYTES:
        raise UserError(f"the model's weights take {size:,} bytes, and an ONNX file holds "
                        f"{_PROTOBUF_BYTES:,} at most: take --format safetensors")
    paths = [path, path.with_name(f"{path.stem}.step{path.suffix}")]
    for each, graph in zip(paths, (_of_sentences, _of_a_step)):
        with publish(each) as temporary:
            temporary.write_bytes(_model(graph(config, checkpoint), metadata))
    return paths


def _model(graph: onnx.GraphProto, metadata: dict[str, str]) -> bytes:
    from onnx import checker, helper

    model = helper.make_model(graph, producer_name="lstm-batch-pipeline", ir_version=_IR_VERSION,
                              opset_imports=[helper.make_opsetid("", _OPERATORS)])
    helper.set_model_props(model, metadata)
    checker.check_model(model, full_check=True)
    return model.SerializeToString()


class _Graph:
    """Nodes of a graph, each with one name for all that it gives, and the weights they use."""

    def __init__(self, prefix: str = ""):
        self._prefix = prefix
        self._numbers = itertools.count()
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node with one output; returns its name."""
        return self.add_several(operator, inputs, [name or self._new(operator)], **attributes)[0]

    def add_several(self, operator: str, inputs: Iterable[str], outputs: list[str],
                    **attributes: Any) -> list[str]:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, [*inputs], outputs, **attributes))
        return outputs

    def split(self, gates: str) -> list[str]:
        """The gates, in the order of `GATES`, of what has them side by side."""
        names = [self._new("Split") for _ in GATES]
        return self.add_several("Split", [gates], names, axis=1)

    def weight(self, name: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def _new(self, operator: str) -> str:
        return f"{self._prefix}{operator.lower()}_{next(self._numbers)}"


class _Layer:
    """The weights of a recurrent layer in a graph."""

    def __init__(self, graph: _Graph, number: int, config: NetworkConfig,
                 parameters: dict[str, np.ndarray]):
        name = f"lstm{number + 1}"

        def side_by_side(kind: str) -> str:
            return graph.weight(f"{name}.{kind}", np.concatenate(
                [parameters[f"{name}.{kind}_{gate}"] for gate in GATES], axis=-1))

        self._first = number == 0
        self._inputs, self._recurrent = side_by_side("W_in_to"), side_by_side("W_hid_to")
        self._bias = side_by_side("b")
        self._peepholes = {gate: graph.weight(f"{name}.W_cell_to_{gate}",
                                              parameters[f"{name}.W_cell_to_{gate}"])
                           for gate in GATES if config.peepholes and gate != "cell"}

    def project(self, graph: _Graph, below: str) -> str:
        """What words, or the outputs of the layer below, add to the gates: (..., 4 units)."""
        chosen = (graph.add("Gather", self._inputs, below) if self._first
                  else graph.add("MatMul", below, self._inputs))
        return graph.add("Add", chosen, self._bias)

    def step(self, graph: _Graph, projected: str, hidden: str, cell: str,
             outputs: tuple[str, str] = ("", "")) -> tuple[str, str]:
        """The next hidden state and cell, (sentences, units): Graves (2013), eq. 7 to 11."""
        def seen(gate: str, value: str, cell: str) -> str:
            if gate not in self._peepholes:
                return value
            return graph.add("Add", value, graph.add("Mul", cell, self._peepholes[gate]))

        gates = graph.add("Add", projected, graph.add("MatMul", hidden, self._recurrent))
        ingate, forgetgate, candidate, outgate = graph.split(gates)
        ingate = graph.add("Sigmoid", seen("ingate", ingate, cell))
        forgetgate = graph.add("Sigmoid", seen("forgetgate", forgetgate, cell))
        kept = graph.add("Mul", forgetgate, cell)
        added = graph.add("Mul", ingate, graph.add("Tanh", candidate))
        cell = graph.add("Add", kept, added, name=outputs[1])
        outgate = graph.add("Sigmoid", seen("outgate", outgate, cell))
        return graph.add("Mul", outgate, graph.add("Tanh", cell), name=outputs[0]), cell


def _log_softmax(graph: _Graph, hidden: str, checkpoint: Checkpoint, name: str = "") -> str:
    weights, bias = (graph.weight(each, checkpoint.parameters[each])
                     for each in ("softmax.W", "softmax.b"))
    logits = graph.add("Add", graph.add("MatMul", hidden, weights), bias)
    return graph.add("LogSoftmax", logits, name=name, axis=-1)


def _of_sentences(config: NetworkConfig, checkpoint: Checkpoint) -> onnx.GraphProto:
    """From inputs and targets (sentences, steps) to the targets' log-probabilities."""
    from onnx import TensorProto, helper

    graph = _Graph()
    below = graph.add("Transpose", "inputs", perm=[1, 0])
    sentences = graph.add("Slice", graph.add("Shape", "inputs"),
                          graph.weight("zero", np.array([0])), graph.weight("one", np.array([1])))
    size = graph.add("Concat", sentences, "one", axis=0)
    for number in range(config.num_layers):
        layer = _Layer(graph, number, config, checkpoint.parameters)
        initial = [graph.add("Expand", graph.weight(name, checkpoint.parameters[name]), size)
                   for name in (f"lstm{number + 1}.hid_init", f"lstm{number + 1}.cell_init")]
        loop = _Graph(f"loop{number + 1}.")
        hidden, cell, projected = (f"loop{number + 1}.{name}"
                                   for name in ("hidden", "cell", "projected"))
        after = f"{hidden}_after", f"{cell}_after"
        layer.step(loop, projected, hidden, cell, outputs=after)
        loop.add("Identity", after[0], name=f"{hidden}_output")
        units = config.num_units
        body = helper.make_graph(
            loop.nodes, f"a step of layer {number + 1}",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["sentences", width])
             for name, width in ((hidden, units), (cell, units), (projected, 4 * units))],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["sentences", units])
             for name in (*after, f"{hidden}_output")])
        _, _, below = graph.add_several(
            "Scan", [*initial, layer.project(graph, below)],
            [f"layer{number + 1}.{name}" for name in ("hidden", "cell", "outputs")],
            body=body, num_scan_inputs=1)
    scores = _log_softmax(graph, below, checkpoint)
    last = graph.weight("last_axis", np.array([-1]))
    targets = graph.add("Unsqueeze", graph.add("Transpose", "targets", perm=[1, 0]), last)
    chosen = graph.add("Squeeze", graph.add("GatherElements", scores, targets, axis=2), last)
    graph.add("Transpose", chosen, name="log_probabilities", perm=[1, 0])
    shape = ["sentences", "steps"]
    return helper.make_graph(
        graph.nodes, "sentences",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape)
         for name in ("inputs", "targets")],
        [helper.make_tensor_value_info("log_probabilities", TensorProto.FLOAT, shape)],
        graph.weights)


def _of_a_step(config: NetworkConfig, checkpoint: Checkpoint) -> onnx.GraphProto:
    """From words (sentences,) and a state to the next words' log-probabilities and next state.

    A sentence whose word is ``<s>`` begins anew, whatever its state is.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    layers = range(config.num_layers)
    start = graph.weight("start", np.array(checkpoint.vocabulary.start))
    begins = graph.add("Unsqueeze", graph.add("Equal", "words", start),
                       graph.weight("last_axis", np.array([-1])))
    below = "words"
    after: dict[str, list[str]] = {"hidden": [], "cell": []}
    for number in layers:
        layer = _Layer(graph, number, config, checkpoint.parameters)
        place = graph.weight(f"layer{number + 1}", np.array(number))

        def before(state: str, initial: str, place: str = place) -> str:
            given = graph.add("Gather", state, place, axis=0)
            initial = graph.weight(initial, checkpoint.parameters[initial])
            return graph.add("Where", begins, initial, given)

        below, cell = layer.step(
            graph, layer.project(graph, below), before("hidden", f"lstm{number + 1}.hid_init"),
            before("cell", f"lstm{number + 1}.cell_init"))
        after["hidden"].append(below)
        after["cell"].append(cell)
    first = graph.weight("first_axis", np.array([0]))
    for state, values in after.items():
        graph.add("Concat", *(graph.add("Unsqueeze", value, first) for value in values),
                  name=f"{state}_after", axis=0)
    _log_softmax(graph, below, checkpoint, "log_probabilities")
    shape: list[int | str | None] = [len(layers), "sentences", config.num_units]
    return helper.make_graph(
        graph.nodes, "step",
        [helper.make_tensor_value_info("words", TensorProto.INT64, ["sentences"]),
         *(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in after)],
        [helper.make_tensor_value_info("log_probabilities", TensorProto.FLOAT,
                                       ["sentences", len(checkpoint.vocabulary)]),
         *(helper.make_tensor_value_info(f"{name}_after", TensorProto.FLOAT, shape)
           for name in after)],
        graph.weights)
