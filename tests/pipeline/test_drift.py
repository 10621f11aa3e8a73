"""What each stage makes of a tiny corpus, as it stood when its format got its number.

A change of our code, of polars, of Unicode's tables or of Python that makes other words, another
vocabulary, other shards or another training of the same text is seen here. Digests are of contents,
not of files: HDF5's own bytes may change with its version.
"""

import hashlib
import json

import numpy as np
import pytest

from model import engine  # noqa: F401  isort: skip
from model.configuration import NetworkConfig, TrainingConfig
from model.data.shards import load
from model.system.hdf5 import open_hdf5
from model.training import TrainingJob, train
from pipeline import tasks
from pipeline.corpus.splits import SPLITS
from pipeline.tokens import read_tokens
from tests.jobs import Job

TEXT = """\
In the beginning God created the heaven and the earth.
And God said, Let there be light: and there was light.
The children of Senaah, 3,630; and don't (Jesus wept).
Thou shalt not covet thy neighbour’s house -- nor his ox!
le cafe\u0301 d’été, à 12.50 € ; déjà-vu…
ΤΙΣ ΟΔΟΣ; Σίσυφος ΣΊΣΥΦΟΣ. ΟΔΌΣ
İstanbul ISTANBUL ıi J\u030cǰ ẞß
Ёлка и ёж: Елка, Й и\u0306
हिन्दी क्\u200dष में १२३ शब्द।
ন্\u200dয য়\u200cা ন\u09bc
می\u200cخواهم كتاب ٱلۡكِتَٰبُ ١٢٫٥
日本語のテキスト、中文文本。 カ\u3099ガ
한국어 \u1112\u1161\u11ab글 텍스트
ภาษาไทย ภาសា\u200bខ្មែរ
👩🏽\u200d💻 and 👍🏽 ❤\ufe0f\u200d🔥 ☂\ufe0f x² ½ ①
so\u00adft hy\u00adphens\u200b, \u202amarks\u202c and\ufeff joiners Auf\u200clage
<s> the <unk> said unto the <unk> , N % </s>
<UNK> and (<unk>) and <s> within
snake_case mid-air U.S. 1990s 1.000.000,5 http://a.b/c?d=e
\u00a0white\u2003space\u3000and\ttabs\x01controls\u0085
<s> </s>
\u200b
"""

# By stage the number of its format, and the digest of what it makes.
GOLDEN = {
    "corpus": (3, "2b582f3494278f86"),
    "tokens": (4, "3d822e9386ff2709"),
    "vocabulary": (2, "ca2e33a08c7c5fdd"),
    "shards": (3, "9c9893476d0c58ab"),
    "baseline": (1, "ce6a638a40e0b389"),
}
# The number of the model's format, and of a short training on these shards some losses and the
# validations' perplexities.
GOLDEN_TRAINING = 5, {
    "losses": [4.09555, 3.87355, 3.70370],
    "validations": [48.28711, 39.58018],
}


def lines():
    """The lines, each many times with words that tell them apart, and a few of one word."""
    return [f"{line} {number % 7} w{number * number % 41}" if line and number else line
            for number in range(24) for line in TEXT.split("\n")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The corpus, with splits drawn by hash, gone through all stages to the shards."""
    job = Job(tmp_path_factory.mktemp("drift"))
    job.train.write_text("".join(f"{line}\n" for line in lines()), encoding="utf-8", newline="")
    job.set("corpus", valid="", test="", valid_share=0.1, test_share=0.1)
    job.build(tasks.CountNGrams)
    return job


def digest(*values):
    """Of arrays, with what they are, and of texts."""
    state = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            value = value.astype(value.dtype.newbyteorder("<"))
            state.update(f"{value.dtype.str} {value.shape}\n".encode() + value.tobytes())
        else:
            state.update(f"{value}\n".encode())
    return state.hexdigest()[:16]


def contents(job):
    """By stage the digest of what it has made."""
    parts = {split: job.parts(split) for split in SPLITS}
    vocabulary = job.root(tasks.BuildVocabulary)
    files = {split: job.root(tasks.EncodeCorpus).shards(split) for split in SPLITS}
    tokens = [read_tokens(part.tokens().artifact().path)
              for split in SPLITS for part in files[split]]
    shards = [load(part.artifact().path) for split in SPLITS for part in files[split]]
    with open_hdf5(job.root(tasks.CountNGrams).artifact().path) as file:
        ngrams = [file[name][()] for name in ("1/counts", *(
            f"{order}/{table}" for order in range(2, 6) for table in ("ngrams", "counts")))]
        discounts = [file[f"{order}"].attrs["discounts"] for order in range(1, 6)]
    return {
        "corpus": digest(json.dumps(parts)),
        "tokens": digest(*(each for found in tokens for each in (
            *found.types, found.counts, found.indices, found.lengths))),
        "vocabulary": digest(vocabulary.artifact().path.read_text(encoding="utf-8")),
        "shards": digest(*(each for shard in shards for each in (
            shard.vocabulary_digest, shard.end, shard.steps, shard.offsets, shard.indices))),
        "baseline": digest(*ngrams, *(each.round(6) for each in discounts)),
    }


def test_every_stage_makes_what_it_made_when_its_format_got_its_number(made):
    found = {stage: (tasks._FORMATS[stage], value) for stage, value in contents(made).items()}
    differing = [stage for stage in found if found[stage] != GOLDEN[stage]]
    # What the stages behind the first of them make follows from that.
    assert not differing, (
        f"the stage {differing[0]} makes other content of the same text than it did when its "
        f"format got its number. Unless that is a mistake, raise _FORMATS[{differing[0]!r}] in "
        f"pipeline/tasks.py, and let GOLDEN be {found}")


def test_a_short_training_gives_the_figures_that_it_gave(made, tmp_path):
    encoded = made.root(tasks.EncodeCorpus)
    job = TrainingJob(
        folder=tmp_path, train_shards=encoded.shard_files("train"),
        valid_shards=encoded.shard_files("valid"),
        vocabulary=made.root(tasks.BuildVocabulary).vocabulary(),
        network=NetworkConfig(8, dropout=0.1),
        training=TrainingConfig(
            optimiser="adam", rate=0.01, window=64, denominator="sentences",
            micro_batch_sentences=16, micro_batch_tokens=512, max_epochs=2, max_minutes=0,
            cooldown=0.5, validations_per_epoch=1, patience=4, shards_in_memory=2, seed=1),
        tokenization={"lowercase": True}, source="drift", checkpoint_minutes=60)
    train(job)
    log = [json.loads(line) for line in job.log.read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    found = {"losses": [losses[0], losses[len(losses) // 2], losses[-1]],
             "validations": [entry["validation_perplexity"] for entry in log
                             if "validation_perplexity" in entry]}
    number, wanted = GOLDEN_TRAINING
    assert (tasks._FORMATS["model"], found) == (number, {
        name: pytest.approx(values, rel=1e-3) for name, values in wanted.items()
    }), (
        f"a training on the same shards gives other figures than format {number} did. Unless that "
        "is a mistake, raise _FORMATS['model'] in pipeline/tasks.py, and let GOLDEN_TRAINING be "
        f"{tasks._FORMATS['model']}, {found}")
