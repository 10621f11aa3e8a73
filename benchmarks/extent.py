"""How much is measured: everything, or enough to see that the measuring works."""

from __future__ import annotations

from dataclasses import dataclass

# The comparison is one of libraries, not of machines: it stays the same on larger ones.
THREADS = 2

CARD_CONTENDERS = ("training", "torch-one-hot", "torch-embedding")


@dataclass(frozen=True)
class Shape:
    """A network and one micro-batch for it.

    Parameters
    ----------
    units : int
        Hidden units of the one recurrent layer.
    sentences, steps : int
        Of the micro-batch.
    vocabulary : int
        Entries.
    """

    units: int
    sentences: int
    steps: int
    vocabulary: int

    @property
    def tokens(self) -> int:
        """Words to predict in the micro-batch."""
        return self.sentences * self.steps

    @property
    def recurrent_operations(self) -> int:
        """What a token needs in the recurrent layer, forward and backward: 24 units^2.

        Three products (hidden states, their gradient, the weights' gradient) of 2 * units *
        4 * units operations. A one-hot input needs none.
        """
        return 24 * self.units**2

    @property
    def softmax_operations(self) -> int:
        """What a token needs in the softmax layer, forward and backward: 6 units vocabulary."""
        return 6 * self.units * self.vocabulary


@dataclass(frozen=True)
class CardExtent:
    """What is timed on a card, and how often.

    Parameters
    ----------
    units : tuple of int
    sentences, steps, vocabulary : int
    window : int
        Micro-batches that are queued before their loss is asked for.
    turns : int
        Timings of each contender, of which the median counts.
    seconds : float
        Least length of one timing.
    """

    units: tuple[int, ...]
    sentences: int
    steps: int
    vocabulary: int
    window: int
    turns: int
    seconds: float


@dataclass(frozen=True)
class ProcessesExtent:
    """What is timed with one and two processes of one thread each.

    Parameters
    ----------
    units : tuple of int
    vocabulary : int
    sentences : tuple of int
        Of a window, for each number of units: of fewer where an update takes long.
    micro_batch : int
        Sentences.
    steps : tuple of int
        The least and the most of a sentence.
    slots : int
    turns : int
        Timings of each number of processes, in turn, of which the median counts.
    seconds : float
        Least length of one timing.
    """

    units: tuple[int, ...]
    vocabulary: int
    sentences: tuple[int, ...]
    micro_batch: int
    steps: tuple[int, int]
    slots: int
    turns: int
    seconds: float


@dataclass(frozen=True)
class Extent:
    """What is varied, and how often each figure is taken.

    Parameters
    ----------
    units, sentences : tuple of int
        Of the comparison: every pair of them.
    steps, vocabulary : int
        Of the comparison.
    turns : int
        Timings of each contender, of which the median counts.
    seconds : float
        Least length of one timing.
    pause : float
        Seconds between two timings: the threads of the process before go on waiting busily for
        a while (up to 0.2 s in some OpenMP libraries).
    cold : bool
        Whether compilation is measured with an empty cache too.
    growing_units, growing_sentences, growing_steps : tuple of int
        What the fused network is timed with, one varied at a time.
    middle : Shape
        The values of those that are not varied.
    corpora : tuple of int
        Sentences of the synthetic corpora.
    passes : int
        Updates of the training pass over a corpus.
    large_corpora : tuple of int
        Sentences of the corpora that are prepared up to the n-gram model.
    preparations : int
        Times the largest corpus is prepared.
    files : tuple of int
        Files of the folders that are prepared.
    parts : tuple of int
        Of the corpora that are looked at.
    large_units : int
        Of the network whose checkpoint is written, and whose updates are timed.
    vocabularies, trained_vocabularies : tuple of int
        Sizes that a corpus is prepared with, and those of them that are trained with.
    vocabulary_units : tuple of int
        Of the networks that are trained.
    vocabulary_sentences : int
        Of the corpus.
    card : CardExtent
    processes : ProcessesExtent
    """

    units: tuple[int, ...]
    sentences: tuple[int, ...]
    steps: int
    vocabulary: int
    turns: int
    seconds: float
    pause: float
    cold: bool
    growing_units: tuple[int, ...]
    growing_sentences: tuple[int, ...]
    growing_steps: tuple[int, ...]
    middle: Shape
    corpora: tuple[int, ...]
    large_corpora: tuple[int, ...]
    passes: int
    preparations: int
    files: tuple[int, ...]
    parts: tuple[int, ...]
    large_units: int
    vocabularies: tuple[int, ...]
    trained_vocabularies: tuple[int, ...]
    vocabulary_units: tuple[int, ...]
    vocabulary_sentences: int
    card: CardExtent
    processes: ProcessesExtent


FULL = Extent(
    units=(256, 512, 1024), sentences=(64, 128), steps=20, vocabulary=2000,
    turns=7, seconds=1.0, pause=0.3, cold=True,
    growing_units=(128, 256, 512, 1024, 2048),
    growing_sentences=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    growing_steps=(5, 10, 20, 50, 100),
    middle=Shape(units=512, sentences=64, steps=20, vocabulary=2000),
    corpora=(10_000, 30_000, 100_000, 300_000, 1_000_000), passes=40, preparations=3,
    large_corpora=(1_000_000, 10_000_000, 30_000_000),
    files=(1_000, 4_000, 10_000), parts=(500, 5_000), large_units=4096,
    vocabularies=(2_000, 5_000, 10_000, 50_000, 500_000),
    trained_vocabularies=(2_000, 10_000, 50_000), vocabulary_units=(256, 512),
    vocabulary_sentences=300_000,
    # A window is an update of the seed network's: 1,024 sentences.
    card=CardExtent(units=(256, 512, 1024, 2048, 4096), sentences=128, steps=20, vocabulary=2000,
                    window=8, turns=5, seconds=0.3),
    processes=ProcessesExtent(
        units=(256, 1024, 4096), vocabulary=2000, sentences=(512, 512, 256), micro_batch=32,
        steps=(8, 32), slots=16, turns=3, seconds=10.0))

QUICK = Extent(
    units=(16,), sentences=(4,), steps=3, vocabulary=50,
    turns=2, seconds=0.01, pause=0.0, cold=False,
    growing_units=(8, 16), growing_sentences=(1, 4), growing_steps=(2, 3),
    middle=Shape(units=16, sentences=4, steps=3, vocabulary=50),
    corpora=(300, 1000), large_corpora=(2_000, 4_000), passes=2, preparations=1, files=(40, 80),
    parts=(3, 5), large_units=8,
    vocabularies=(50,), trained_vocabularies=(50,), vocabulary_units=(8,),
    vocabulary_sentences=300,
    card=CardExtent(units=(8,), sentences=4, steps=3, vocabulary=50, window=2, turns=2,
                    seconds=0.01),
    processes=ProcessesExtent(units=(8,), vocabulary=50, sentences=(16,), micro_batch=4,
                              steps=(2, 4), slots=2, turns=1, seconds=0.05))
