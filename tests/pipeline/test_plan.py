"""The arithmetic of a plan, and what it takes of a sample."""

import dataclasses

import pytest

from pipeline import sampling
from pipeline.corpus.files import find_corpus
from pipeline.plan import Plan, Prepared, prepare
from tests.jobs import sentences, write

READING = {"sentences_per_part": 300, "valid_share": 0.05, "test_share": 0.05}
TOKENS = {"lowercase": True, "split": "words"}
WORDS = {"size": 50, "minimum_count": 1, "word_list": ""}


@pytest.fixture
def corpus(tmp_path):
    write(tmp_path / "text.txt", sentences(4000))
    return find_corpus(str(tmp_path / "text.txt"))


def test_a_sample_that_is_everything_has_the_very_counts(corpus, tmp_path):
    found = prepare(corpus, tmp_path / "made", reading=READING, tokens=TOKENS, vocabulary=WORDS)
    lines = corpus.files[0].path.read_text().splitlines()
    assert found.whole and found.words == len(found.vocabulary) == 50
    assert sum(found.sentences.values()) == len(lines)
    assert sum(found.tokens.values()) == sum(
        2 * len(line.split()) + 1 for line in lines)  # "word12" is a word and a number
    assert found.seconds > 0
    text = sum(len(line) + 1 for line in lines)
    assert 1.2 * text < found.bytes < 6 * text


def test_a_part_of_the_text_tells_of_the_whole(corpus, tmp_path, monkeypatch):
    every = prepare(corpus, tmp_path / "every", reading=READING, tokens=TOKENS, vocabulary=WORDS)
    monkeypatch.setattr(sampling, "_MOST_BYTES", corpus.files[0].identity.size // 4)
    monkeypatch.setattr(sampling, "_LEAST_BYTES", 100)
    part = prepare(corpus, tmp_path / "part", reading=READING, tokens=TOKENS,
                   vocabulary={**WORDS, "size": "all"})
    assert not part.whole
    for of in (lambda found: found.sentences, lambda found: found.tokens):
        assert of(part)["train"] == pytest.approx(of(every)["train"], rel=0.05)
    assert part.bytes == pytest.approx(every.bytes, rel=0.3)
    # "word" and 80 numbers, all of them in a fourth of the text: no more are to come.
    assert part.words == len(part.vocabulary) == 84


def plan(**changes):
    prepared = Prepared({}, None, 2000, {"train": 1000, "valid": 50, "test": 40},
                        {"train": 20_000, "valid": 1000, "test": 800}, 6.0, 4e6, True)
    measured = {"token": 0.001, "update": 0.01, "scored_token": 0.0001, "checkpoint": 0.5,
                "model": 0.25, "compiling": 4.0, "compiling_evaluation": 3.0, "starting": 2.0,
                "counted_token": 1e-5, "ngram_scored_token": 2e-5, "baselines_token": 1e-6,
                "ngram_bytes": 10.0, "checkpoint_bytes": 1e6, "model_bytes": 4e5, "report": 1.5}
    training = {"window": 64, "max_epochs": 3, "validations_per_epoch": 2,
                "checkpoint_minutes": 0.5, "max_minutes": 0}
    return Plan(prepared, measured, {**training, **changes}, 1)


def test_seconds_are_counts_times_what_each_takes():
    found = plan()
    assert found.updates == 16 * 3 and found.validations == 6
    updates = 60_000 * 0.001 + 48 * 0.01
    training = updates + 6 * 1000 * 0.0001 + (6 + updates / 30) * 0.5
    assert found.training_seconds() == pytest.approx(training)
    assert found.rows() == pytest.approx({
        "preparation": 6.0, "n-grams": 0.2, "training": 2 + 4 + training + 0.25,
        "evaluation": 2 + 3 + 1800 * 0.00012 + 0.02, "report": 1.5})
    assert found.disk_bytes() == 4e6 + 2e5 + 3e6 + 4e5


def test_a_time_budget_ends_the_training_with_a_validation():
    found = plan()
    assert found.rows(0.5)["training"] == pytest.approx(2 + 4 + 30 + 0.1 + 0.25)
    assert found.rows(100) == found.rows()


def test_what_is_done_takes_nothing_more():
    found = dataclasses.replace(plan(), done=frozenset({"preparation", "n-grams"}),
                                updates_done=24)
    rows = found.rows()
    assert rows["preparation"] == rows["n-grams"] == 0
    assert rows["training"] == pytest.approx(6.25 + plan().training_seconds() / 2)


def test_several_workers_share_the_preparation(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for workers, seconds in ((1, 6), (2, 3), (8, 3)):
        assert dataclasses.replace(plan(), workers=workers).rows()["preparation"] == seconds
