"""The split of a sentence, and what splits have in common."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.system.errors import DamagedFile, UserError
from pipeline.corpus.hashing import hash_sentences
from pipeline.corpus.splits import SPLITS, choose_splits, sentences_also_in_training
from tests.pipeline.corpus.texts import VERSES, split_texts


def test_the_side_of_a_sentence_does_not_depend_on_others(tmp_path):
    sentences = [f"{verse} {number}" for number in range(3000) for verse in VERSES]
    _, splits = split_texts(tmp_path, sentences, valid_share=0.1, test_share=0.2)
    of = {s: split for split in SPLITS for part in splits[split] for s in part}
    assert len(of) == len(sentences)
    shares = collections.Counter(of.values())
    assert shares["valid"] / len(sentences) == pytest.approx(0.1, abs=0.02)
    assert shares["test"] / len(sentences) == pytest.approx(0.2, abs=0.02)
    fewer = sentences[::-3] * 2
    _, splits = split_texts(tmp_path, fewer, valid_share=0.1, test_share=0.2)
    again = {s: split for split in SPLITS for part in splits[split] for s in part}
    assert all(of[s] == split for s, split in again.items())
    for split in SPLITS:  # in the order of the corpus, repetitions included
        assert [s for part in splits[split] for s in part] == [s for s in fewer if of[s] == split]


@given(st.lists(st.text(), min_size=1), st.floats(0, 0.5), st.floats(0, 0.4))
def test_sides_follow_from_the_texts_alone(sentences, valid_share, test_share):
    encoded = [s.encode() for s in sentences]
    together = choose_splits(hash_sentences(encoded), valid_share, test_share)
    alone = [choose_splits(hash_sentences([s]), valid_share, test_share)[0] for s in encoded]
    assert together.tolist() == alone
    assert together.dtype == np.uint8
    # Another share of the one split leaves the other as it is.
    other = choose_splits(hash_sentences(encoded), valid_share / 2, test_share)
    assert ((other == 2) == (together == 2)).all()
    assert ((other == 1) <= (together == 1)).all()


def test_given_sides_are_taken_whole_and_missing_ones_are_drawn(tmp_path):
    train = [f"{verse} {number}" for number in range(200) for verse in VERSES]
    _, splits = split_texts(tmp_path, train, valid=VERSES, test=VERSES[:2])
    assert splits == {"train": [train], "valid": [VERSES], "test": [VERSES[:2]]}
    _, splits = split_texts(tmp_path, train, valid=VERSES)
    assert splits["valid"] == [VERSES]
    assert 0 < len(splits["test"][0]) < 50
    assert sorted(splits["train"][0] + splits["test"][0]) == sorted(train)


def test_a_side_without_sentences_is_an_error(tmp_path):
    with pytest.raises(UserError, match="train.txt leaves no sentence for the train side"):
        split_texts(tmp_path, [], valid=VERSES, test=VERSES[:2])
    with pytest.raises(UserError, match="test.txt leaves no sentence for the test side"):
        split_texts(tmp_path, VERSES, valid=VERSES[:2], test=["", " "])
    with pytest.raises(UserError, match=r"few different sentences \(1; .*VALID=file"):
        split_texts(tmp_path, ["In the beginning"] * 5000)
    with pytest.raises(UserError, match=r"^valid_share is 0, and .*VALID=file"):
        split_texts(tmp_path, VERSES * 100, valid_share=0)


def count_also_in_training(folder, parts):
    found = sentences_also_in_training(folder, parts)
    return {split: sum(counts.values()) for split, counts in found.items()}


@given(
    texts=st.lists(st.lists(st.sampled_from(["a", " a", "b\r", "é", "e\u0301", "c", "", "d"]),
                            max_size=8), min_size=3, max_size=3),
    given_sides=st.tuples(st.booleans(), st.booleans()),
)  # fmt: skip
def test_sentences_that_also_occur_in_training_are_counted(
    tmp_path_factory, texts, given_sides
):
    texts[0] += map(str, range(50))
    for number, text in enumerate(texts[1:]):
        text.append(f"only here {number}")
    if not given_sides[0]:
        texts[1] = None
    if not given_sides[1]:
        texts[2] = None
    folder = tmp_path_factory.mktemp("corpus")
    manifest, splits = split_texts(folder, *texts, valid_share=0.2, test_share=0.2,
                                   sentences_per_part=9)
    training = {s for part in splits["train"] for s in part}
    expected = {split: sum(s in training for part in splits[split] for s in part)
                for split in ("valid", "test")}  # fmt: skip
    digests = {split: [part["digest"] for part in manifest["sides"][split]] for split in SPLITS}
    assert count_also_in_training(folder / "parts", digests) == expected
    for split, was_given in zip(("valid", "test"), given_sides):
        assert was_given or expected[split] == 0  # a hash knows no other split


def test_sentences_are_not_counted_in_a_damaged_part(tmp_path):
    manifest, _ = split_texts(tmp_path, VERSES, VERSES[:2], VERSES[1:2])
    digests = {split: [part["digest"] for part in manifest["sides"][split]] for split in SPLITS}
    assert count_also_in_training(tmp_path / "parts", digests) == {"valid": 2, "test": 1}
    path = tmp_path / "parts" / f"{digests['train'][0]}.txt"
    path.write_bytes(path.read_bytes().replace(b"Jesus", b"jesus"))
    with pytest.raises(DamagedFile, match=path.name):
        count_also_in_training(tmp_path / "parts", digests)
