"""What the network and its training can be told, and which values make sense."""

from __future__ import annotations

import math
import re
import typing
from dataclasses import dataclass
from typing import Annotated, Any

from .system.errors import BadInput

# Rules of Lasagne's, by their names there, and how many numbers each keeps for a parameter.
OPTIMISERS = {"adagrad": 1, "adam": 2, "rmsprop": 1, "momentum": 1, "adadelta": 2}
# So that their sums are added in a tree, which processes share out evenly.
SLOTS = tuple(2**n for n in range(11))
PRECISIONS = ("single", "tf32", "bf16")
# Of an LSTM layer; "cell" is what may be added to the cell.
GATES = ("ingate", "forgetgate", "cell", "outgate")
# Of the n-gram model that networks are compared with: words of its longest n-grams.
ORDERS = (2, 3, 4, 5)


@dataclass(frozen=True)
class Rule:
    """Which values a setting may have: finite numbers within bounds, or words.

    Parameters
    ----------
    kind : {bool, int, float, str}
    at_least, above, at_most, below : float, optional
        Bounds of a number.
    choices : tuple, optional
        The values that there are; none for any.
    word : str, optional
        What may stand in a number's place.
    pattern : str, optional
        A regular expression that all of a text has to match.
    described : str, optional
        What it stands for, as in "it must be ...".
    """

    kind: type
    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    choices: tuple[Any, ...] = ()
    word: str = ""
    pattern: str = ".*"
    described: str = ""

    def __str__(self) -> str:
        """What a value must be: "a whole number of at least 1"."""
        if self.kind is bool:
            return "true or false"
        if self.choices:
            *words, last = map(str, self.choices)
            return self.described or f"{', '.join(words)} or {last}"
        if self.kind is str:
            return self.described or "any text"
        return " or ".join(filter(None, [self._number(), self.word]))

    def _number(self) -> str:
        name = "a whole number" if self.kind is int else "a number"
        if self.at_least > -math.inf and self.at_most < math.inf:
            return f"{name} from {self.at_least:,} to {self.at_most:,}"
        bounds = [f"{words} {bound:,}" for words, bound in (
            ("of at least", self.at_least), ("above", self.above),
            ("of at most", self.at_most), ("below", self.below)) if math.isfinite(bound)]
        return " ".join([name, " and ".join(bounds)]).strip()

    def allows(self, value: Any) -> bool:
        """Whether a value is one of those."""
        if self.choices and value not in self.choices:
            return False
        if self.kind is bool:
            return isinstance(value, bool)
        if self.word and value == self.word:
            return True
        if self.kind is str:
            return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None
        wanted = int if self.kind is int else (int, float)
        return (isinstance(value, wanted) and not isinstance(value, bool)
                and -math.inf < value < math.inf
                and self.at_least <= value <= self.at_most and self.above < value < self.below)

    def parse(self, text: str) -> Any:
        """The value that a text stands for.

        Raises
        ------
        ValueError
            When it is not allowed; says what is.
        """
        value: Any = text
        try:
            if self.kind is bool:
                value = {"true": True, "false": False}[text.lower()]
            elif self.kind is not str and text != self.word:
                value = self.kind(text)
        except (KeyError, ValueError):
            value = None
        if not self.allows(value):
            raise ValueError(f"it must be {self}")
        return value


def rules(config: type) -> dict[str, Rule]:
    """The rules of a configuration's fields, by name."""
    hints = typing.get_type_hints(config, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def _check(section: str, config: Any) -> None:
    for name, rule in rules(type(config)).items():
        value = getattr(config, name)
        if not rule.allows(value):
            raise BadInput(f"[{section}] {name} = {value}: it must be {rule}")


SWITCH = Rule(bool)
# Within what Theano and numpy count with.
AMOUNT = Rule(int, at_least=1, at_most=2**31 - 1)
DEVICE = Rule(str, pattern=r"cpu|torch-cpu|cuda(:\d{1,3})?",
              described="cpu, torch-cpu, cuda, or cuda:N for the card with the number N")


@dataclass(frozen=True)
class NetworkConfig:
    """What the network looks like.

    Parameters
    ----------
    num_units : int
        Hidden units of each recurrent layer.
    num_layers : int
        Recurrent layers, one on the other.
    grad_clipping : float
        Bound on the gradient of the gates' pre-activations at every step; 0 for none.
    peepholes : bool
        Whether the gates see the cell.
    learn_init : bool
        Whether the state before the first word is learned, or zero.
    dropout : float
        Share of the outputs of each recurrent layer that is dropped in training, none of the
        recurrent state (Zaremba et al., 2014).
    recurrent_dropout : float
        Share of the recurrent weights that is dropped in training, the same ones for all sentences
        of an update (Merity et al., 2018).
    input_dropout : float
        Share of the words whose input weights an update does without (Gal and Ghahramani, 2016).
    recurrence : {"fused", "scan"}
        How the recurrence is computed; the result is the same.

    Raises
    ------
    UserError
        On a value that makes no sense; names it.

    References
    ----------
    W. Zaremba, I. Sutskever, O. Vinyals: Recurrent neural network regularization. arXiv:1409.2329.
    S. Merity, N. Keskar, R. Socher: Regularizing and optimizing LSTM language models. ICLR 2018.
    """

    num_units: Annotated[int, AMOUNT]
    num_layers: Annotated[int, AMOUNT] = 1
    grad_clipping: Annotated[float, Rule(float, at_least=0)] = 5.0
    peepholes: Annotated[bool, SWITCH] = True
    learn_init: Annotated[bool, SWITCH] = False
    dropout: Annotated[float, Rule(float, at_least=0, below=1)] = 0.0
    recurrent_dropout: Annotated[float, Rule(float, at_least=0, below=1)] = 0.0
    input_dropout: Annotated[float, Rule(float, at_least=0, below=1)] = 0.0
    recurrence: Annotated[str, Rule(str, choices=("fused", "scan"))] = "fused"

    def __post_init__(self):
        _check("network", self)

    def count_weights(self, vocabulary_size: int) -> int:
        """Parameters that are matrices: those of the gates, and those of the last layer."""
        units = self.num_units
        below = vocabulary_size + (self.num_layers - 1) * units
        return units * (4 * (below + self.num_layers * units) + vocabulary_size)

    def parameter_shapes(self, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
        """The names and shapes of all weights, fixed initial states among them.

        Parameters
        ----------
        vocabulary_size : int

        Returns
        -------
        dict of str to tuple of int
            Names as in a checkpoint, where the weights lie in single precision.
        """
        units = self.num_units
        shapes: dict[str, tuple[int, ...]] = {}
        for number in range(self.num_layers):
            inputs = vocabulary_size if number == 0 else units
            for gate in GATES:
                shapes |= {f"lstm{number + 1}.W_in_to_{gate}": (inputs, units),
                           f"lstm{number + 1}.W_hid_to_{gate}": (units, units),
                           f"lstm{number + 1}.b_{gate}": (units,)}
                if self.peepholes and gate != "cell":
                    shapes[f"lstm{number + 1}.W_cell_to_{gate}"] = (units,)
            shapes |= {f"lstm{number + 1}.{state}_init": (1, units) for state in ("hid", "cell")}
        return {**shapes, "softmax.W": (units, vocabulary_size), "softmax.b": (vocabulary_size,)}


@dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained; luigi.cfg explains each value.

    Parameters
    ----------
    optimiser : str
        A key of `OPTIMISERS`: rules of Lasagne's, see References.
    rate : float
        Learning rate.
    window : int
        Sentences per update.
    denominator : {"sentences", "tokens"}
        What the summed gradients of a window are divided by.
    micro_batch_sentences, micro_batch_tokens : int
        Bounds on what is computed at a time.
    max_norm : float
        Bound on the norm of a window's average gradient; 0 for none (Pascanu et al., 2013).
    beta1 : float
        Adam's decay of the average of the gradients (Kingma and Ba); no other rule reads it.
    weight_decay : float
        This times the rate is the share of each parameter that an update takes away (Loshchilov and
        Hutter, 2019); 0 for none.
    max_epochs : float
        Times that the training text is gone through, the last of which may be a part.
    max_minutes : float
        Time budget of the training, over all its runs; 0 for none.
    cooldown : float
        Share of the training, at its end, over which the rate falls linearly to zero.
    validations_per_epoch : int
    patience : int
        After so many validations in a row without a new best the training has stalled: see
        `model.schedule.end_share`.
    shards_in_memory : int
    seed : int
    slots : int
        Shares of a window whose sums are made each by itself, and then added: see `model.slots`.
    precision : {"single", "tf32", "bf16"}
        Of the matrix products, on a card: see `model.engine.open_device`.

    Raises
    ------
    UserError
        On a value that makes no sense; names it.

    References
    ----------
    adagrad: J. Duchi, E. Hazan, Y. Singer: Adaptive subgradient methods for online learning and
    stochastic optimization. JMLR 12, 2011. adam: D. Kingma, J. Ba: Adam: a method for stochastic
    optimization. ICLR 2015. rmsprop: T. Tieleman, G. Hinton: Lecture 6.5, Coursera, 2012. adadelta:
    M. Zeiler: ADADELTA: an adaptive learning rate method. arXiv:1212.5701. momentum: B. Polyak:
    Some methods of speeding up the convergence of iteration methods, 1964. R. Pascanu, T. Mikolov,
    Y. Bengio: On the difficulty of training recurrent neural networks. ICML 2013. I. Loshchilov,
    F. Hutter: Decoupled weight decay regularization. ICLR 2019.
    """

    optimiser: Annotated[str, Rule(str, choices=tuple(OPTIMISERS))]
    rate: Annotated[float, Rule(float, above=0)]
    window: Annotated[int, AMOUNT]
    denominator: Annotated[str, Rule(str, choices=("sentences", "tokens"))]
    micro_batch_sentences: Annotated[int, AMOUNT]
    micro_batch_tokens: Annotated[int, AMOUNT]
    max_epochs: Annotated[float, Rule(float, above=0, at_most=2**31 - 1)]
    max_minutes: Annotated[float, Rule(float, at_least=0)]
    cooldown: Annotated[float, Rule(float, at_least=0, at_most=1)]
    validations_per_epoch: Annotated[int, AMOUNT]
    patience: Annotated[int, AMOUNT]
    shards_in_memory: Annotated[int, AMOUNT]
    # Of numpy's generators.
    seed: Annotated[int, Rule(int, at_least=0, at_most=2**32 - 1)]
    max_norm: Annotated[float, Rule(float, at_least=0)] = 0.0
    beta1: Annotated[float, Rule(float, at_least=0, below=1)] = 0.9
    weight_decay: Annotated[float, Rule(float, at_least=0)] = 0.0
    slots: Annotated[int, Rule(int, choices=SLOTS, described="a power of two up to 1,024")] = 1
    precision: Annotated[str, Rule(str, choices=PRECISIONS)] = "single"

    def __post_init__(self):
        _check("training", self)
