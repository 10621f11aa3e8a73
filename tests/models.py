"""Tiny models with random weights, for the tests of what uses a model."""

import numpy as np

from model.checkpoint import Checkpoint, write_checkpoint
from model.configuration import NetworkConfig
from model.data.tokenization import clean, tokenize_sentence
from model.data.vocabulary import SPECIALS, Vocabulary

# King James, Genesis 1: sentences of several lengths, two of the same.
LINES = [
    "In the beginning God created the heaven and the earth.",
    "And God said, Let there be light: and there was light.",
    "And God called the light Day, and the darkness he called Night.",
    "And the evening and the morning were the first day.",
    "And the evening and the morning were the second day.",
    "And God saw that [it was] good.",
]

# Every setting that changes what is computed.
NETWORKS = {
    "as the default": NetworkConfig(8),
    "two layers": NetworkConfig(8, num_layers=2),
    "no peepholes": NetworkConfig(8, peepholes=False),
    "learned first state": NetworkConfig(8, learn_init=True),
    "all of it": NetworkConfig(8, num_layers=3, peepholes=False, learn_init=True, dropout=0.5),
}


def vocabulary_of(lines, *, without=("first", "light"), **tokenization):
    """All words of some lines but a few, and the special ones."""
    words = sorted({word for line in lines
                    for word in tokenize_sentence(clean(line, tokenization["split"]),
                                                  **tokenization)} - {*without})
    # Not the special ones first: nothing may depend on that.
    words = [*words[:3], *SPECIALS, *words[3:]]
    return Vocabulary(tuple(words), tuple(range(len(words), 0, -1)))


def random_model(config, *, lowercase=True, split="words", lines=LINES):
    """A checkpoint of a network whose weights are large enough that all of them matter."""
    tokenization = {"lowercase": lowercase, "split": split}
    vocabulary = vocabulary_of(lines, **tokenization)
    random = np.random.default_rng(3)
    parameters = {name: random.normal(0, 0.7, shape).astype("float32")
                  for name, shape in config.parameter_shapes(len(vocabulary)).items()}
    if not config.learn_init:
        for name in parameters:
            if name.endswith("_init"):
                parameters[name][:] = 0
    return Checkpoint(parameters=parameters, optimiser=[], vocabulary=vocabulary,
                      settings={"network": vars(config), "training": {}, "source": "0123",
                                "tokenization": tokenization}, position={"updates": 0})


def write_model(path, config=NETWORKS["as the default"], **options):
    """A file of such a model; returns the checkpoint."""
    checkpoint = random_model(config, **options)
    write_checkpoint(path, checkpoint)
    return checkpoint
