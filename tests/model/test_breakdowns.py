"""Breakdowns against going through the tokens one by one."""

import math
from collections import defaultdict

import numpy as np
import pytest

from model.breakdowns import breakdowns, most_different
from model.data.shards import ShardReader, write_shard
from model.data.vocabulary import Vocabulary
from model.evaluation import evaluate

# The last letters are the most frequent, and for the first one the vocabulary has no room.
TRAIN = [" ".join("abcdefghijklmn"[first:]) for first in range(14)]
TEST = ["n", "n m", "a zebra b", "m n m n", "zebra zebra", "n n zebra l k",
        " ".join(["n", "f"] * 12)]


@pytest.fixture(scope="module")
def scored(tmp_path_factory, make_shards):
    """A reader of TEST, the vocabulary, tables of two models, and their evaluations."""
    folder = tmp_path_factory.mktemp("breakdowns")
    _, vocabulary = make_shards(folder / "train", [TRAIN], size=16)
    make_shards(folder / "test", [TEST])
    write_shard(folder / "test" / "tokens0.h5", vocabulary, folder / "test.h5")
    reader = ShardReader([folder / "test.h5"])
    size = len(vocabulary)
    tables = dict(zip(("network", "n-grams"), np.log(
        np.random.default_rng(2).dirichlet(np.ones(size), (2, size)))))
    return reader, vocabulary, tables


def evaluations(reader, vocabulary, tables):
    return {name: evaluate(lambda x, y, table=table: table[x, y], reader, vocabulary)
            for name, table in tables.items()}


def without_unknown(vocabulary):
    """The same, as if training had never had <unk>."""
    return Vocabulary(vocabulary.words, tuple(
        count * (word != "<unk>") for word, count in zip(vocabulary.words, vocabulary.counts)))


def tokens(vocabulary, table):
    """Sentence, position from 1, words in the sentence, word, and log-probability of each token."""
    places = {word: n for n, word in enumerate(vocabulary.words)}
    for sentence in TEST:
        words = [word if word in places else "<unk>" for word in sentence.split()] + ["</s>"]
        for position, (before, word) in enumerate(zip(["<s>", *words], words), 1):
            yield (" ".join(words[:-1]), position, len(words) - 1, word,
                   table[places[before], places[word]])


@pytest.mark.parametrize("counted", [True, False], ids=["with <unk>", "without <unk>"])
def test_groups_equal_going_through_the_tokens(scored, counted):
    reader, vocabulary, tables = scored
    if not counted:
        vocabulary = without_unknown(vocabulary)
    found = breakdowns(evaluations(reader, vocabulary, tables), vocabulary)
    positions = {**{n: f"{n}" for n in range(1, 6)}, **dict.fromkeys(range(6, 11), "6 to 10"),
                 **dict.fromkeys(range(11, 21), "11 to 20"),
                 **dict.fromkeys(range(21, 41), "21 to 40")}
    ranks = {word: "1 to 10" if rank <= 10 else "11 to 13" for rank, word in enumerate(
        (word for word in vocabulary.words if len(word) == 1), 1)}
    expected = {kind: defaultdict(lambda: defaultdict(list)) for kind in found}
    for name, table in tables.items():
        for _, position, _, word, score in tokens(vocabulary, table):
            expected["by_frequency"][ranks.get(word, word)][name].append(score)
            expected["by_knowledge"]["<unk>" if word == "<unk>" else "known words and </s>"][
                name].append(score)
            if counted or word != "<unk>":
                expected["by_position"][positions[position]][name].append(score)
    for kind in ("by_frequency", "by_position", "by_knowledge"):
        whole = sum(len(of["network"]) for of in expected[kind].values())
        assert {row["group"]: row for row in found[kind]} == {
            group: {"group": group, "tokens": len(of["network"]),
                    "share": pytest.approx(len(of["network"]) / whole),
                    "perplexity": pytest.approx({
                        name: math.exp(-np.mean(scores)) for name, scores in of.items()})}
            for group, of in expected[kind].items()}
    assert [row["group"] for row in found["by_position"]] == [
        "1", "2", "3", "4", "5", "6 to 10", "11 to 20", "21 to 40"]
    assert [row["group"] for row in found["by_frequency"]] == ["1 to 10", "11 to 13", "<unk>",
                                                               "</s>"]


@pytest.mark.parametrize("counted", [True, False], ids=["with <unk>", "without <unk>"])
def test_lengths_are_in_groups_that_hold_every_token_once(scored, counted):
    reader, vocabulary, tables = scored
    if not counted:
        vocabulary = without_unknown(vocabulary)
    rows = breakdowns(evaluations(reader, vocabulary, tables), vocabulary)["by_length"]
    all_tokens = list(tokens(vocabulary, tables["network"]))
    seen = 0
    for row in rows:
        first, _, last = row["group"].partition(" to ")
        inside = [score for _, _, words, word, score in all_tokens
                  if int(first) <= words <= int(last or first) and (counted or word != "<unk>")]
        assert row["tokens"] == len(inside)
        assert row["perplexity"]["network"] == pytest.approx(math.exp(-np.mean(inside)))
        seen += len(inside)
    assert seen == sum(counted or word != "<unk>" for *_, word, _ in all_tokens)
    assert len(rows) >= 3


@pytest.mark.parametrize("count", [2, 100])
def test_sentences_where_two_models_differ_most(scored, count):
    reader, vocabulary, tables = scored
    found = most_different(evaluations(reader, vocabulary, tables), reader, vocabulary, count)
    perplexities = defaultdict(dict)
    for name, table in tables.items():
        scores = defaultdict(list)
        for sentence, _, _, _, score in tokens(vocabulary, table):
            scores[sentence].append(score)
        for sentence, of in scores.items():
            perplexities[sentence][name] = math.exp(-np.mean(of))
    assert found.keys() == tables.keys()
    for name, other in (("network", "n-grams"), ("n-grams", "network")):
        better = sorted((sentence for sentence, of in perplexities.items() if of[name] < of[other]),
                        key=lambda sentence: perplexities[sentence][name]
                        / perplexities[sentence][other])
        assert [" ".join(row["words"]) for row in found[name]] == better[:count] != []
        for row in found[name]:
            assert row["perplexity"] == pytest.approx(perplexities[" ".join(row["words"])])


def test_one_model_alone_has_groups_too(scored):
    reader, vocabulary, tables = scored
    both = evaluations(reader, vocabulary, tables)
    alone = breakdowns({"network": both["network"]}, vocabulary)
    for kind, rows in breakdowns(both, vocabulary).items():
        assert [row["perplexity"] for row in alone[kind]] == [
            {"network": row["perplexity"]["network"]} for row in rows]
