"""PyTorch's LSTM with a softmax layer, on the processor or a card: what training is compared with.

PyTorch is imported here: only where it is to be timed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks.extent import THREADS, Shape
from benchmarks.micro_batches import micro_batch, one_hot


def settings(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    """Let PyTorch compute on a device as precisely as it says; the device, and the type of arrays.

    In ``bf16`` the arrays themselves are of that type.
    """
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return (torch.device("cpu" if device == "torch-cpu" else device),
            torch.bfloat16 if precision == "bf16" else torch.float32)


class TorchLSTM:
    """Loss, and gradients added to those of before.

    Parameters
    ----------
    task : {"torch-one-hot", "torch-embedding"}
        The first is the network of the project, without peepholes and clipping, which PyTorch's
        LSTM does not have; its inputs are one-hot floats, made before the clock starts. The second
        has an embedding of `units` dimensions before the LSTM: another, larger network, but what is
        usually written in PyTorch.
    shape : Shape
    device : {"torch-cpu", "cuda", "cuda:N"}
    precision : {"single", "tf32", "bf16"}
    """

    def __init__(self, task: str, shape: Shape, device: str = "torch-cpu",
                 precision: str = "single"):
        to, dtype = settings(device, precision)
        inputs, targets = micro_batch(shape)
        embedding: nn.Module
        if task == "torch-one-hot":
            embedding, width = nn.Identity(), shape.vocabulary
            x = torch.from_numpy(np.ascontiguousarray(one_hot(inputs.T, shape.vocabulary)))
            self._inputs = x.to(to, dtype)
        else:
            embedding, width = nn.Embedding(shape.vocabulary, shape.units), shape.units
            self._inputs = torch.from_numpy(inputs.T.astype(np.int64)).to(to)
        self._embedding = embedding.to(to, dtype)
        self._lstm = nn.LSTM(width, shape.units).to(to, dtype)
        self._softmax = nn.Linear(shape.units, shape.vocabulary).to(to, dtype)
        self._targets = torch.from_numpy(targets.T.astype(np.int64).ravel()).to(to)
        self._loss = torch.zeros((), dtype=torch.float64, device=to)

    def accumulate(self) -> None:
        """One micro-batch; on a card the work is only queued."""
        hidden, _ = self._lstm(self._embedding(self._inputs))
        logits = self._softmax(hidden.reshape(-1, hidden.shape[-1])).float()
        loss = nn.functional.cross_entropy(logits, self._targets, reduction="sum")
        loss.backward()
        self._loss += loss.detach()

    def loss(self) -> float:
        """The summed loss of all micro-batches, when they are done."""
        return float(self._loss)
