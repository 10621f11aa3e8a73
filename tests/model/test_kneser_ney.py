"""Kneser-Ney against a slow transcription of its equations, KenLM's own figures, and by hand."""

import math
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model import kneser_ney, ngram_counting
from model.configuration import ORDERS
from model.data.shards import ShardReader, write_shard
from model.data.vocabulary import Vocabulary
from model.evaluation import batches
from model.kneser_ney import KneserNey, discounts, write_kneser_ney
from model.system.errors import DamagedFile, UserError
from model.system.hdf5 import open_hdf5, write_hdf5


class Slow:
    """The published equations, one probability at a time, in dictionaries.

    Chen and Goodman (1998), with KenLM's choices: counts of what begins with <s> are not adjusted,
    and the unigrams are interpolated with the uniform distribution.
    """

    def __init__(self, sentences, words, order):
        self.order, self.words = order, [word for word in words if word != "<s>"]
        occurrences, before = Counter(), defaultdict(set)
        for words_of_sentence in sentences:
            tokens = ["<s>", *words_of_sentence, "</s>"]
            for end in range(1, len(tokens) + 1):
                for start in range(end):
                    ngram = tuple(tokens[start:end])
                    occurrences[ngram] += 1
                    if start:
                        before[ngram].add(tokens[start - 1])
        self.counts = {k: {} for k in range(1, order + 1)}
        for ngram, occurs in occurrences.items():
            if len(ngram) <= order and ngram != ("<s>",):
                adjusted = len(ngram) < order and ngram[0] != "<s>"
                self.counts[len(ngram)][ngram] = len(before[ngram]) if adjusted else occurs
        self.followers = {k: defaultdict(list) for k in self.counts}
        for k, counts in self.counts.items():
            for ngram, count in counts.items():
                self.followers[k][ngram[:-1]].append(count)
        self.discounts = {k: self.discount(list(counts.values()))
                          for k, counts in self.counts.items()}

    @staticmethod
    def discount(counts):
        n1, n2, n3, n4 = (counts.count(j) for j in (1, 2, 3, 4))
        if n1 and n2 and n3:
            y = n1 / (n1 + 2 * n2)
            found = [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
            if all(0 <= d <= j for j, d in enumerate(found)):
                return found
        return [0, 0.5, 1, 1.5]

    def probability(self, word, context):
        """Of a word after all words before it, <s> the first."""
        return self._probability(word, tuple(context)[max(0, len(context) - self.order + 1):])

    def _probability(self, word, context):
        lower = (self._probability(word, context[1:]) if context else 1 / len(self.words))
        k = len(context) + 1
        followers = self.followers[k][context]
        if not followers:
            return lower
        d = self.discounts[k]
        count = self.counts[k].get((*context, word), 0)
        backoff = sum(d[min(each, 3)] for each in followers) / sum(followers)
        return (count - d[min(count, 3)]) / sum(followers) + backoff * lower


def known(sentences, vocabulary):
    return [[word if word in vocabulary.words else "<unk>" for word in sentence.split()]
            for sentence in sentences]


def scores(model, vocabulary, sentences):
    """Natural log-probabilities of the words of each sentence and its end."""
    rows = [vocabulary.encode(sentence.split()) for sentence in sentences]
    pairs = [(np.array([[vocabulary.start, *row]]), np.array([[*row, vocabulary.end]]))
             for row in rows]
    return [found[0] for found in model.score(pairs)]


def fitted(make_shards, folder, parts, order, size=2000):
    """A model of some parts, each a list of sentences, with its vocabulary."""
    shards, vocabulary = make_shards(folder, parts, size=size)
    write_kneser_ney(shards, vocabulary, order, folder / "model.h5")
    return KneserNey(folder / "model.h5", vocabulary), vocabulary


def check(model, vocabulary, parts, test, order):
    slow = Slow([words for part in parts for words in known(part, vocabulary)],
                vocabulary.words, order)
    for found, words in zip(scores(model, vocabulary, test), known(test, vocabulary)):
        tokens = ["<s>", *words, "</s>"]
        np.testing.assert_allclose(np.exp(found), [
            slow.probability(tokens[n], tokens[:n]) for n in range(1, len(tokens))], rtol=1e-12)


def word(number):
    """A word of letters, which the tokenizer leaves whole."""
    return "w" + "".join("abcdefghij"[int(digit)] for digit in str(number))


WORDS = st.sampled_from(["a", "b", "c", "d", "e", "rare", "rarer"])
SENTENCES = st.lists(st.lists(WORDS, min_size=1, max_size=8).map(" ".join), min_size=1,
                     max_size=30)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(SENTENCES, min_size=1, max_size=2), test=SENTENCES,
       order=st.sampled_from(ORDERS), at_a_time=st.sampled_from([1, 7, 1 << 20]))
def test_every_probability_is_that_of_the_equations(
        make_shards, tmp_path_factory, parts, test, order, at_a_time):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_ROWS_AT_A_TIME", "_TOKENS_AT_A_TIME"):
            patch.setattr(kneser_ney, name, at_a_time)
        patch.setattr(ngram_counting, "SORTED_AT_A_TIME", at_a_time)
        patch.setattr(ngram_counting, "_SETS", 3 * at_a_time)
        # Eight words with the special ones: some of the text's are unknown.
        model, vocabulary = fitted(
            make_shards, tmp_path_factory.mktemp("kneser_ney"), parts, order, size=8)
        check(model, vocabulary, parts, test, order)


@pytest.mark.parametrize("order", ORDERS)
def test_the_discounts_are_defined_in_a_larger_text_and_the_equations_hold(
        make_shards, tmp_path, random, order):
    def text(count):
        return [" ".join(word(n) for n in random.zipf(1.5, random.integers(1, 12)) % 700)
                for _ in range(count)]

    # Of more words than one byte tells apart.
    parts, test = [text(600), text(300)], text(30)
    model, vocabulary = fitted(make_shards, tmp_path, parts, order, size=400)
    assert len(vocabulary) > 256
    with open_hdf5(tmp_path / "model.h5") as file:
        assert tuple(file[f"{order}"].attrs["discounts"]) != (0, 0.5, 1, 1.5)
    check(model, vocabulary, parts, test, order)


def test_words_of_four_bytes(make_shards, tmp_path):
    size = (1 << 16) + 5
    words = [word(n) for n in range(size)]
    vocabulary = Vocabulary(("<unk>", "<s>", "</s>", *words), (0,) * (size + 3))
    a, b, last = word(0), word(1), word(size - 1)
    parts = [[f"{a} {b} {last} {a}", f"{a} {b} {a}", f"{last} {a} {b}", a, f"{last} {last} {b}"]]
    make_shards(tmp_path, parts)
    write_shard(tmp_path / "tokens0.h5", vocabulary, tmp_path / "shard.h5")
    write_kneser_ney([tmp_path / "shard.h5"], vocabulary, 3, tmp_path / "model.h5")
    model = KneserNey(tmp_path / "model.h5", vocabulary)
    check(model, vocabulary, parts, [f"{a} {b} {last} {b}", f"{word(2)} {last} {a} {b}"], 3)


KENLM_TRAIN = ["the cat sat on the mat", "the dog sat on the log", "the cat saw the dog",
               "a dog saw a cat", "the mat", "on the mat sat a cat", "the cat sat on the mat",
               "a log fell"]
KENLM_TEST = ["the cat sat on the log", "a cat saw the mat", "on a log sat the dog",
              "the bird sat"]


# Of KenLM 0.3.0: lmplz -o ORDER --discount_fallback --text TRAIN --arpa MODEL; query MODEL < TEST.
# It gives an unknown word ("bird") the share that <unk> has here, which this text has not either.
# Among the counts of counts KenLM takes the last n-gram of each order as often as it occurs, not by
# its adjusted count: "fell", the last new word, occurs once, so that both are the same.
@pytest.mark.parametrize("order, totals", [
    (2, [-3.845175, -3.6963134, -7.965585, -4.182772]),
    (3, [-2.3288643, -4.081214, -7.972099, -4.4312863]),
    (4, [-2.5357504, -4.122713, -7.7109222, -4.177573]),
    (5, [-2.5429833, -4.122713, -7.7109222, -4.177573]),
])
def test_the_sums_of_sentences_are_kenlms(make_shards, tmp_path, order, totals):
    model, vocabulary = fitted(make_shards, tmp_path, [KENLM_TRAIN], order)
    found = [each.sum() / math.log(10) for each in scores(model, vocabulary, KENLM_TEST)]
    assert found == pytest.approx(totals, rel=1e-5)


def test_a_text_of_two_sentences_by_hand(make_shards, tmp_path):
    model, vocabulary = fitted(make_shards, tmp_path, [["a b", "a c"]], 2)
    with open_hdf5(tmp_path / "model.h5") as file:
        counts = np.roll(file["1/counts"], file.attrs["start"])
        assert dict(zip(vocabulary.words, counts.tolist())) == {
            "<unk>": 0, "<s>": 0, "</s>": 2, "a": 1, "b": 1, "c": 1}
        assert file["1"].attrs["counts_of_counts"].tolist() == [3, 1, 0, 0]
        assert file["2"].attrs["counts_of_counts"].tolist() == [4, 1, 0, 0]
    # No count is three, so the discounts are 0.5, 1 and 1.5. The five counts of words keep 3, and
    # 2 of 5 are shared by five words: 0.1 each is 0.5 * 1/5.
    a, end, unknown = 0.5 / 5 + 0.1, 1 / 5 + 0.1, 0.1
    expected = {
        "a b": [1 / 2 + 1 / 2 * a, 0.5 / 2 + 0.5 * a, 0.5 + 0.5 * end],
        "new a": [1 / 2 * unknown, a, 0.5 * end],
    }
    for found, values in zip(scores(model, vocabulary, list(expected)), expected.values()):
        np.testing.assert_allclose(np.exp(found), values)


@pytest.mark.parametrize("order", ORDERS)
def test_probabilities_after_any_context_add_up_to_one(make_shards, tmp_path, order):
    model, vocabulary = fitted(make_shards, tmp_path, [KENLM_TRAIN], order, size=9)
    targets = np.array([n for n in range(len(vocabulary)) if n != vocabulary.start])
    for context in ("", "the", "the cat", "on the", "a", "cat a on", "bird"):
        before = [vocabulary.start, *vocabulary.encode(context.split())]
        inputs = np.tile(before, (len(targets), 1))
        wanted = np.column_stack([inputs[:, 1:], targets])
        found, = model.score([(inputs, wanted)])
        assert np.exp(found[:, -1]).sum() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("counts_of_counts, expected", [
    ((4, 2, 1, 1), (0, 0.5, 1.25, 1)),
    ((4, 2, 1, 0), (0, 0.5, 1.25, 3)),
    ((0, 2, 1, 1), (0, 0.5, 1, 1.5)),
    ((4, 0, 1, 1), (0, 0.5, 1, 1.5)),
    ((4, 2, 0, 1), (0, 0.5, 1, 1.5)),
    ((2, 1, 1, 100), (0, 0.5, 1, 1.5)),  # three occurrences would be discounted by -97
])
def test_discounts(counts_of_counts, expected):
    assert tuple(discounts(counts_of_counts)) == pytest.approx(expected)


def test_batches_of_shards_are_scored_in_their_order(make_shards, tmp_path):
    shards, vocabulary = make_shards(tmp_path, [KENLM_TRAIN, KENLM_TEST])
    write_kneser_ney(shards, vocabulary, 3, tmp_path / "model.h5")
    model, reader = KneserNey(tmp_path / "model.h5", vocabulary), ShardReader(shards)
    for found, (inputs, targets) in zip(model.score(batches(reader)), batches(reader), strict=True):
        assert found.shape == targets.shape
        for row, single in zip(found, zip(inputs, targets)):
            alone, = model.score([tuple(each[None] for each in single)])
            np.testing.assert_array_equal(row, alone[0])


def test_the_same_text_gives_the_same_bytes_and_all_of_the_progress(make_shards, tmp_path):
    shards, vocabulary = make_shards(tmp_path, [KENLM_TRAIN, KENLM_TEST])
    shares = []
    for name, order in (("one", shards), ("two", shards[::-1])):
        write_kneser_ney(order, vocabulary, 4, tmp_path / name, shares.append)
        time.sleep(1.1)  # HDF5 would keep times in seconds
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert shares == 2 * sorted(shares[:len(shares) // 2]) and shares[-1] == 1


def test_a_file_that_is_no_such_model_is_an_error(make_shards, tmp_path):
    shards, vocabulary = make_shards(tmp_path, [KENLM_TRAIN])
    path = tmp_path / "model.h5"
    write_kneser_ney(shards, vocabulary, 2, path)

    others = make_shards(tmp_path / "other", [["other words"]])[1]
    with pytest.raises(UserError, match="another vocabulary"):
        KneserNey(path, others)
    with pytest.raises(UserError, match="another vocabulary"):
        write_kneser_ney(shards, others, 2, tmp_path / "other.h5")
    assert not (tmp_path / "other.h5").exists()
    with pytest.raises(DamagedFile, match="no n-gram model"):
        with write_hdf5(tmp_path / "empty.h5"):
            pass
        KneserNey(tmp_path / "empty.h5", vocabulary)
    with pytest.raises(FileNotFoundError):
        KneserNey(tmp_path / "none.h5", vocabulary)

    model = KneserNey(path, vocabulary)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match="seal"):
        KneserNey(path, vocabulary)
    path.unlink()
    with pytest.raises(DamagedFile, match="cannot be read any more"):
        scores(model, vocabulary, ["the cat"])


def test_another_version_of_the_format_is_an_error(make_shards, tmp_path, monkeypatch):
    shards, vocabulary = make_shards(tmp_path, [KENLM_TRAIN])
    monkeypatch.setattr(kneser_ney, "FORMAT_VERSION", 99)
    write_kneser_ney(shards, vocabulary, 2, tmp_path / "model.h5")
    monkeypatch.undo()
    with pytest.raises(UserError, match="format version 99"):
        KneserNey(tmp_path / "model.h5", vocabulary)
