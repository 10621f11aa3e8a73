"""What a training takes of a graphics card's memory, told before it begins."""

from __future__ import annotations

from model.configuration import OPTIMISERS, NetworkConfig, TrainingConfig

_GATES = 4
_MOST_LOGITS = 1 << 25  # at a time, as in `model.engine.on_torch.layers`
_LARGEST_PIECE = 1 << 22  # numbers of a parameter, as in `model.engine.on_torch.updates`
_ON_THE_WAY = 12  # arrays of a piece's size: all that Adam computes
_LONGEST_SENTENCE = 200  # steps: a longer one is a micro-batch of its own


def bytes_of_training(network: NetworkConfig, training: TrainingConfig, vocabulary: int) -> int:
    """The most that a training's tensors take at a time.

    ::

        4 (S + D + P (2 + optimiser + log2(slots)) + max(T (A + 4 units), T A + c L, U))

    in bytes, with P parameters, their sums, and the arrays that the update rule keeps for each; the
    sums of slots that wait for others; S, the weights of the gates side by side, for training and
    for validation; D, where weights are dropped, what is left of them and its gradients;
    T tokens of a micro-batch; A numbers for each of these, A = 8 layers units; L logits, of a block
    of tokens, in c arrays: 2, and 4 where products round their factors to bf16; and U, what an
    update computes on the way, for a piece of a parameter at a time. The logits are gone when the
    gradients of a layer's gates come.

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
    dropped = 2 * _GATES * units * (units * layers * (network.recurrent_dropout > 0)
                                    + vocabulary * (network.input_dropout > 0))
    of_logits = 2
    if training.precision == "bf16":
        side_by_side //= 2
        of_logits = 4
    tokens = max(training.micro_batch_tokens, _LONGEST_SENTENCE)
    tokens = min(tokens, training.micro_batch_sentences * _LONGEST_SENTENCE)
    states, logits = tokens * 8 * layers * units, min(_MOST_LOGITS, tokens * vocabulary)
    parameters, arrays = network.count_weights(vocabulary), 2 + OPTIMISERS[training.optimiser]
    waiting = training.slots.bit_length() - 1
    piece = min(_LARGEST_PIECE, units * max(units, vocabulary))
    return 4 * (side_by_side + dropped + parameters * (arrays + waiting) + max(
        states + tokens * _GATES * units, states + of_logits * logits, piece * _ON_THE_WAY))
