"""A trained model in a program, with numpy and h5py alone.

Its name there is ``from lstm_model import LanguageModel``; docs/using.md shows it.
"""

from __future__ import annotations

import functools
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from . import sampling
from .current import current_model
from .data.tokenization import clean, tokenize_sentence
from .data.vocabulary import END, START, Vocabulary
from .evaluation import Totals, perplexity
from .inference import load_numpy_network, read_model
from .numpy_network import NumpyNetwork
from .numpy_network import State as _Carried
from .scoring import Batch, LineScore, score_sentences
from .system import environment

# That are scored at a time: enough to have many of one length side by side.
_SENTENCES_PER_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class SentenceScore:
    """How probable a sentence is, token by token.

    Parameters
    ----------
    tokens : tuple of str
        Its words as the model sees them, and ``</s>`` at the end. None where the text holds no
        word, which is no sentence; to a model of text that is tokenized already (split = spaces)
        it is one, of ``</s>`` alone.
    known : bool array (tokens,)
        Whether each is in the vocabulary. The others are ``<unk>`` to the model.
    log_probabilities : float64 array (tokens,)
        Natural logarithms of their probabilities, each after all tokens before it.
    """

    tokens: tuple[str, ...]
    known: np.ndarray
    log_probabilities: np.ndarray

    @property
    def log_probability(self) -> float:
        """The natural logarithm of the probability of the whole sentence, its end included."""
        return float(self.log_probabilities.sum())

    @property
    def perplexity(self) -> float:
        """By token, ``</s>`` included; NaN where there is none."""
        return perplexity(self.log_probability, len(self.tokens))


class LanguageModel:
    """A trained model: scores of sentences, next words, and sentences drawn from it.

    It never changes, and can be used by several threads at a time.

    Examples
    --------
    >>> from lstm_model import LanguageModel
    >>> model = LanguageModel.load()
    >>> score, = model.score(["In the beginning"])
    >>> score.tokens
    ('in', 'the', 'beginning', '</s>')
    >>> bool(abs(score.log_probability - sum(score.log_probabilities)) < 1e-9)
    True
    >>> model.perplexity(["In the beginning", "and the earth"]) > 1
    True
    """

    def __init__(self, vocabulary: Vocabulary, tokenization: dict, network: NumpyNetwork):
        self._vocabulary = vocabulary
        self._tokenization = tokenization
        self._network = network

    @classmethod
    def load(cls, model: str | os.PathLike | None = None, *,
             profile: str | None = None) -> LanguageModel:
        """Read a model.

        Parameters
        ----------
        model : path, optional
            The file of a checkpoint. Without it the model of the last good run in the working
            folder: the environment variable ``PIPELINE_WORK``, or else ``data/work``.
        profile : str, optional
            Of that run; without it the default one, or the only one that has left a model.

        Raises
        ------
        UserError
            When there is none, or it cannot be used; says why.
        """
        checkpoint = read_model(model or current_model(environment.work_folder(), profile))
        return cls(checkpoint.vocabulary, checkpoint.settings["tokenization"],
                   load_numpy_network(checkpoint))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All words that the model knows, with ``<unk>``, ``<s>`` and ``</s>``, by their index."""
        return self._vocabulary.words

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words as the model's own text was split.

        Raises
        ------
        ValueError
            To a model of text that is tokenized already, for ``<s>`` or ``</s>`` within the text.

        Examples
        --------
        >>> from lstm_model import LanguageModel
        >>> LanguageModel.load().tokenize("Let there be light:")
        ['let', 'there', 'be', 'light', ':']
        """
        return tokenize_sentence(clean(text, self._tokenization["split"]), **self._tokenization)

    def score(self, sentences: Iterable[str]) -> list[SentenceScore]:
        """Score sentences: the same figures as ``score --words``.

        Sentences of one length are computed side by side, so many at a time are faster than one
        after the other.

        Parameters
        ----------
        sentences : iterable of str

        Returns
        -------
        list of SentenceScore
            One for each, in their order.

        Raises
        ------
        TypeError
            For one text in place of several.
        ValueError
            As `tokenize`; names the sentence by its number, from 1.

        Examples
        --------
        >>> from lstm_model import LanguageModel
        >>> model = LanguageModel.load()
        >>> for score in model.score(["And God said", "And God xyzzy"]):
        ...     print(score.tokens, score.known)
        ('and', 'god', 'said', '</s>') [ True  True  True  True]
        ('and', 'god', 'xyzzy', '</s>') [ True  True False  True]
        """
        return [SentenceScore(tuple(line.words), line.known, line.log_probabilities)
                for lines in self._score(sentences) for line in lines]

    def perplexity(self, sentences: Iterable[str], *, without_unknown: bool = False) -> float:
        """The perplexity by token of all sentences together, as the last row of ``score``.

        Parameters
        ----------
        sentences : iterable of str
            An open text file is one; it is read as it is needed, in blocks.
        without_unknown : bool
            Leave out the tokens that are not in the vocabulary.

        Returns
        -------
        float
            NaN where there are no tokens.

        Raises
        ------
        TypeError, ValueError
            As `score`.
        """
        totals = Totals()
        for lines in self._score(sentences):
            for line in lines:
                totals += line.totals
        return totals.figures()["perplexity_without_unk" if without_unknown else "perplexity"]

    def state(self, prefix: str = "") -> State:
        """Where a sentence stands after some words: to go on from, word by word.

        Parameters
        ----------
        prefix : str
            The beginning of a sentence; empty for the place before its first word.

        Raises
        ------
        ValueError
            As `tokenize`.

        Examples
        --------
        >>> from lstm_model import LanguageModel
        >>> model = LanguageModel.load()
        >>> state = model.state("And God")
        >>> state = state.after("said")
        >>> state.words
        ('and', 'god', 'said')
        >>> state.log_probability("unto") < 0
        True
        """
        return State(self._vocabulary, self._network, self._network.start(), ()).after(
            *self.tokenize(prefix))

    def next_words(self, prefix: str = "", count: int = 10) -> list[tuple[str, float]]:
        """The likeliest words after a prefix; see `State.next_words`.

        Examples
        --------
        >>> from lstm_model import LanguageModel
        >>> model = LanguageModel.load()
        >>> (word, probability), *others = model.next_words("And God", count=3)
        >>> 0 < probability < 1 and len(others) == 2
        True
        """
        return self.state(prefix).next_words(count)

    def sample(self, count: int = 1, *, prefix: str = "", temperature: float = 1.0,
               seed: int | None = None, max_words: int = 200) -> list[str]:
        """Draw sentences, as the command ``sample`` does.

        Parameters
        ----------
        count : int
            How many.
        prefix : str
            What each begins with.
        temperature : float
            Below 1: likelier words; above: more surprising ones; 0: always the likeliest word.
        seed : int, optional
            The same seed gives the same sentences; without it they are new each time.
        max_words : int
            A sentence that has not ended after so many words more is cut there.

        Returns
        -------
        list of str
            Words with spaces between. None is ``<unk>``, but for those of the prefix that stand
            as they were given.

        Raises
        ------
        ValueError
            As `tokenize`; for a count, a seed or a temperature below 0.

        Examples
        --------
        >>> from lstm_model import LanguageModel
        >>> model = LanguageModel.load()
        >>> sentences = model.sample(2, prefix="In the", seed=7)
        >>> [sentence[:6] for sentence in sentences]
        ['in the', 'in the']
        >>> sentences == model.sample(2, prefix="In the", seed=7)
        True
        """
        if count < 0 or (seed or 0) < 0 or not 0 <= temperature < math.inf:
            raise ValueError("count, seed and temperature are numbers of at least 0: "
                             f"{count}, {seed}, {temperature}")
        words = self.tokenize(prefix)
        drawn = sampling.sample(
            self._network.next_word, self._vocabulary, count=count, temperature=temperature,
            seed=secrets.randbits(64) if seed is None else seed, max_words=max_words,
            prefix=self._vocabulary.encode(words))
        return [" ".join([*words, *(self.vocabulary[n] for n in indices)]) for indices in drawn]

    def _score(self, sentences: Iterable[str]) -> Iterator[list[LineScore]]:
        """The scores of all sentences, block by block."""
        if isinstance(sentences, str):
            raise TypeError("sentences are wanted, in a list or any other iterable, and one text "
                            "was given: put it in brackets")
        block: list[str] = []
        done = 0
        for number, sentence in enumerate(sentences, 1):
            try:
                block.append(clean(sentence, self._tokenization["split"]))
            except ValueError as error:
                raise ValueError(f"sentence {number}: {error}") from None
            if len(block) == _SENTENCES_PER_BLOCK:
                yield self._score_block(block, done)
                done, block = number, []
        yield self._score_block(block, done)

    def _score_block(self, sentences: list[str], done: int) -> list[LineScore]:
        def log_probabilities(batches: list[Batch]) -> Iterator[np.ndarray]:
            return (self._network.log_probabilities(*batch) for batch in batches)

        return score_sentences(sentences, log_probabilities, self._vocabulary,
                               **self._tokenization, first=done + 1)


class State:
    """Where a sentence stands: what came so far, and what may come next.

    It never changes: `after` gives another one, so that several ways to go on can be tried from
    the same place. `LanguageModel.state` makes the first one.

    Parameters
    ----------
    vocabulary : Vocabulary
    network : NumpyNetwork
    carried : State of that network
        Before the last word.
    words : tuple of str
        So far.
    """

    def __init__(self, vocabulary: Vocabulary, network: NumpyNetwork, carried: _Carried,
                 words: tuple[str, ...]):
        self._vocabulary, self._network = vocabulary, network
        self._before = carried
        self.words = words

    @functools.cached_property
    def _read(self) -> tuple[np.ndarray, _Carried]:
        last = self._vocabulary.encode(self.words[-1:] or (START,))
        scores, carried = self._network.step(last, self._before)
        return scores[0], carried

    @property
    def log_probabilities(self) -> np.ndarray:
        """Natural logarithms of the probabilities of all words of the vocabulary as the next one.

        float32 array (vocabulary,), in the order of `LanguageModel.vocabulary`; not to be written
        to. Their exponentials sum up to 1, those of ``<unk>``, ``</s>`` and ``<s>`` included; the
        last is next to nothing, for no text holds it.
        """
        found = self._read[0].view()
        found.flags.writeable = False
        return found

    def after(self, *words: str) -> State:
        """The state after some words more.

        Parameters
        ----------
        *words : str
            As `LanguageModel.tokenize` gives them; one that is not in the vocabulary is ``<unk>``.

        Raises
        ------
        ValueError
            For ``<s>`` or ``</s>``: a sentence begins anew with `LanguageModel.state`.
        """
        state = self
        for word in words:
            if word in (START, END):
                raise ValueError(f"{word} is a border of a sentence; the next one begins with "
                                 "LanguageModel.state()")
            state = State(self._vocabulary, self._network, state._read[1], (*state.words, word))
        return state

    def log_probability(self, word: str) -> float:
        """The natural logarithm of the probability that a word comes next; ``</s>`` is the end."""
        index, = self._vocabulary.encode([word])
        return float(self.log_probabilities[index])

    def next_words(self, count: int = 10) -> list[tuple[str, float]]:
        """The likeliest words that may come next and their probabilities, the likeliest first.

        Parameters
        ----------
        count : int
            How many. ``<unk>``, any word that the model does not know, and ``</s>``, the end, are
            among them where they are likely.
        """
        order = np.argsort(-self.log_probabilities, kind="stable")[:max(0, count)]
        return [(self._vocabulary.words[n], math.exp(self.log_probabilities[n])) for n in order]
