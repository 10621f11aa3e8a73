"""What a training takes of a graphics card's memory, told before it begins."""

from __future__ import annotations

from model.configuration import OPTIMISERS, NetworkConfig, TrainingConfig

_GATES = 4
_LONGEST_SENTENCE = 200  # steps: a longer one is a micro-batch of its own


def bytes_of_training(network: NetworkConfig, training: TrainingConfig, vocabulary: int) -> int:
    """The most that a training's tensors take at a time.

    ::

        4 (P (2 (2 + optimiser) + 1) + S + T A)

    in bytes, with P parameters; the arrays that the update rule keeps for each; S, the weights of
    the gates once more, side by side; T tokens of a micro-batch; and A numbers for each of these,
    A = 16 units for each layer, and 3 vocabularies.

    While an update is made, the old and the new values of the parameters, of the sums and of what
    the rule keeps are all there, and one array more.

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
    side_by_side = _GATES * units * units * (2 * layers - 1)
    if training.precision == "bf16":
        side_by_side //= 2
    tokens = max(training.micro_batch_tokens, _LONGEST_SENTENCE)
    tokens = min(tokens, training.micro_batch_sentences * _LONGEST_SENTENCE)
    each = 16 * units * layers + 3 * vocabulary
    arrays = 2 * (2 + OPTIMISERS[training.optimiser]) + 1
    return 4 * (network.count_weights(vocabulary) * arrays + side_by_side + tokens * each)
