"""What a training takes of a graphics card's memory, told before it begins."""

from __future__ import annotations

from model.configuration import OPTIMISERS, NetworkConfig, TrainingConfig

_GATES = 4
_LONGEST_SENTENCE = 200  # steps: a longer one is a micro-batch of its own


def bytes_of_training(network: NetworkConfig, training: TrainingConfig, vocabulary: int) -> int:
    """The most that a training's tensors take at a time.

    ::

        4 (S + max(P (2 + optimiser + log2(slots)) + T A, P (2 (2 + optimiser) + 2)))

    in bytes, with P parameters, their sums, and the arrays that the update rule keeps for each; the
    sums of slots that wait for others; S,
    the weights of the gates side by side, for training and for validation; T tokens of a
    micro-batch; and A numbers for each of these, A = (4 + 8 layers) units + 2 vocabularies. The
    second term is that of an update: the old and the new values of all are there, and two arrays
    more.

    Parameters
    ----------
    network : NetworkConfig
    training : TrainingConfig
    vocabulary : int
        Words.

    Returns
    -------
    int
    """
    units, layers = network.num_units, network.num_layers
    # Of each layer those for the state, of all but the first those for the layer below, too.
    side_by_side = 2 * _GATES * units * units * (2 * layers - 1)
    if training.precision == "bf16":
        side_by_side //= 2
    tokens = max(training.micro_batch_tokens, _LONGEST_SENTENCE)
    tokens = min(tokens, training.micro_batch_sentences * _LONGEST_SENTENCE)
    each = (4 + 8 * layers) * units + 2 * vocabulary
    parameters, arrays = network.count_weights(vocabulary), 2 + OPTIMISERS[training.optimiser]
    waiting = training.slots.bit_length() - 1
    return 4 * (side_by_side + max(parameters * (arrays + waiting) + tokens * each,
                                   parameters * (2 * arrays + 2)))
