"""Evaluation and baselines against double precision and counting word by word."""

import math
from collections import Counter

import numpy as np
import pytest

from model import evaluation
from model.baselines import Bigrams, baselines, kneser_ney
from model.data.shards import ShardReader, write_shard
from model.data.vocabulary import Vocabulary
from model.evaluation import batches, evaluate, headline, perplexity
from model.kneser_ney import KneserNey, write_kneser_ney
from pipeline.tokens import write_tokens

TRAIN = [["a b a c", "b a", "a", "c c c d", "a b a c"], ["d a b", "b b", "a b c d e f"]]
VALID = [["a b", "c a d z", "a"]]
TEST = [["a b a", "z z a", "b", "a a a a a a a a", "b c"], ["q", "a b a"]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_shards):
    """Readers of the three sets, all with the training split's vocabulary, and that vocabulary."""
    folder = tmp_path_factory.mktemp("corpus")
    shards, vocabulary = make_shards(folder / "train", TRAIN, size=7)
    readers = {"train": shards}
    for name, parts in (("valid", VALID), ("test", TEST)):
        make_shards(folder / name, parts)
        readers[name] = [folder / f"{name}{number}.h5" for number in range(len(parts))]
        for number, path in enumerate(readers[name]):
            write_shard(folder / name / f"tokens{number}.h5", vocabulary, path)
    return {name: ShardReader(paths) for name, paths in readers.items()}, shards, vocabulary


def sentences(parts, vocabulary):
    """Each sentence as a list of words, `<unk>` for those outside, with the end."""
    return [[word if word in vocabulary.words else "<unk>" for word in sentence.split()] + ["</s>"]
            for part in parts for sentence in part]


def table_model(vocabulary):
    """A model that is a table of log-probabilities given the word before, and the table."""
    logits = np.random.default_rng(1).normal(0, 2, (len(vocabulary), len(vocabulary)))
    table = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return (lambda inputs, targets: table[inputs, targets].astype("float32")), table


def naive_scores(table, vocabulary, words):
    """Natural log-probability of each word, one at a time."""
    places = {word: n for n, word in enumerate(vocabulary.words)}
    return [table[places[before], places[word]]
            for before, word in zip(["<s>", *words[:-1]], words)]


@pytest.mark.parametrize("tokens_per_batch", [8192, 1, 7])
def test_every_figure_equals_that_of_counting_word_by_word(corpus, monkeypatch, tokens_per_batch):
    monkeypatch.setattr(evaluation, "TOKENS_PER_BATCH", tokens_per_batch)
    readers, _, vocabulary = corpus
    model, table = table_model(vocabulary)
    result = evaluate(model, readers["test"], vocabulary)

    every = [(words, naive_scores(table, vocabulary, words))
             for words in sentences(TEST, vocabulary)]
    flat = [(word, score) for words, scores in every for word, score in zip(words, scores)]
    known = [score for word, score in flat if word != "<unk>"]
    assert result.totals.figures() == pytest.approx({
        "perplexity": math.exp(-sum(score for _, score in flat) / len(flat)),
        "perplexity_without_unk": math.exp(-sum(known) / len(known)),
        "oov_rate": 3 / 21, "oov_count": 3, "tokens": 28, "words": 21, "sentences": 7,
    }, rel=1e-6)

    assert {steps: (totals.sentences, totals.tokens)
            for steps, totals in result.by_steps.items()} == {
        steps: (count, steps * count)
        for steps, count in Counter(len(words) for words, _ in every).items()}
    for steps, totals in result.by_steps.items():
        assert totals.log_probability == pytest.approx(
            sum(sum(scores) for words, scores in every if len(words) == steps), rel=1e-6)

    # By sentence, whose order is that of the batches.
    of_text = Counter()
    for words, scores in every:
        of_known = [score for word, score in zip(words, scores) if word != "<unk>"]
        of_text[" ".join(words), len(words), round(sum(scores), 4), round(sum(of_known), 4),
                len(of_known)] += 1
    places = [" ".join(vocabulary.words[n] for n in row)
              for _, targets in batches(readers["test"]) for row in targets]
    sums, known_sums = result.sums("perplexity"), result.sums("perplexity_without_unk")
    assert of_text == Counter(
        (text, tokens, round(total, 4), round(of_known, 4), count)
        for text, tokens, total, of_known, count in zip(
            places, sums.tokens, sums.log_probability, known_sums.log_probability,
            known_sums.tokens))

    counts = Counter(word for word, _ in flat)
    np.testing.assert_array_equal(result.by_word.tokens,
                                  [counts[word] for word in vocabulary.words])
    np.testing.assert_allclose(
        result.by_word.log_probability,
        [sum(score for word, score in flat if word == each) for each in vocabulary.words],
        rtol=1e-6)


def test_the_most_surprising_sentences_come_highest_first(corpus):
    readers, _, vocabulary = corpus
    model, table = table_model(vocabulary)
    found = evaluate(model, readers["test"], vocabulary, surprising=3).most_surprising
    expected = sorted(
        ((math.exp(-np.mean(naive_scores(table, vocabulary, words))), words[:-1])
         for words in sentences(TEST, vocabulary)), reverse=True)[:3]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected])
    assert [[vocabulary.words[n] for n in words] for _, words in found] == [
        words for _, words in expected]


def test_progress_ends_at_all(corpus):
    readers, _, vocabulary = corpus
    shares = []
    evaluate(table_model(vocabulary)[0], readers["test"], vocabulary, on_progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1


def test_perplexity_of_nothing_is_undefined():
    assert math.isnan(perplexity(0.0, 0))


def naive_bigrams(vocabulary):
    pairs, contexts, singles = Counter(), Counter(), Counter()
    for words in sentences(TRAIN, vocabulary):
        for before, word in zip(["<s>", *words[:-1]], words):
            pairs[before, word] += 1
            contexts[before] += 1
            singles[word] += 1
    return pairs, contexts, singles


@pytest.mark.parametrize("smoothing", [1e-4, 0.5, 10.0])
def test_baselines_equal_naive_counting(corpus, smoothing):
    _, shards, vocabulary = corpus
    pairs, contexts, singles = naive_bigrams(vocabulary)
    bigrams = Bigrams.count(shards, vocabulary)
    words = vocabulary.words
    predictable = len(words) - 1  # all but <s>
    places = np.arange(len(words))
    every = np.meshgrid(places, places, indexing="ij")
    expected = [[(pairs[a, b] + smoothing) / (contexts[a] + smoothing * predictable)
                 for b in words] for a in words]
    np.testing.assert_allclose(np.exp(bigrams.bigram(smoothing)(*every)), expected)
    total = sum(singles.values())
    expected = [(singles[b] + smoothing) / (total + smoothing * predictable) for b in words]
    np.testing.assert_allclose(np.exp(bigrams.unigram(smoothing)(*every)),
                               np.tile(expected, (len(words), 1)))
    # <s> is never predicted: the other words share the whole probability.
    others = [n for n in places if n != vocabulary.start]
    for model in (bigrams.unigram, bigrams.bigram):
        sums = np.exp(model(smoothing)(*every))[:, others].sum(1)
        np.testing.assert_allclose(np.delete(sums, vocabulary.end), 1)


def test_the_smoothing_is_the_best_on_the_validation_set(corpus):
    readers, shards, vocabulary = corpus
    pairs, contexts, _ = naive_bigrams(vocabulary)

    def naive(parts, smoothing):
        scores = [math.log((pairs[before, word] + smoothing)
                           / (contexts[before] + smoothing * (len(vocabulary) - 1)))
                  for words in sentences(parts, vocabulary)
                  for before, word in zip(["<s>", *words[:-1]], words)]
        return math.exp(-sum(scores) / len(scores))

    choices = [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]
    best = min(choices, key=lambda smoothing: naive(VALID, smoothing))
    result = baselines(Bigrams.count(shards, vocabulary), readers["valid"],
                       {"valid": readers["valid"], "test": readers["test"]}, vocabulary)
    assert result["bigram"] == pytest.approx(
        {"smoothing": best, "valid": naive(VALID, best), "test": naive(TEST, best)})


@pytest.fixture
def compared(corpus, tmp_path):
    """A function that compares a table with trigrams: the result, and by set all scores of both."""
    readers, shards, vocabulary = corpus
    write_kneser_ney(shards, vocabulary, 3, tmp_path / "ngrams.h5")

    def compare(vocabulary):
        table, _ = table_model(vocabulary)
        ngrams = KneserNey(tmp_path / "ngrams.h5", vocabulary)
        sets = {"valid": readers["valid"], "test": readers["test"]}
        of_network = {name: [table(*batch) for batch in batches(reader)]
                      for name, reader in sets.items()}
        scores = {name: [np.concatenate([found.ravel() for found in each]) for each in (
            of_network[name], list(ngrams.score(batches(reader))),
            [targets for _, targets in batches(reader)])] for name, reader in sets.items()}
        return kneser_ney(ngrams, of_network, sets, vocabulary, tmp_path)[0], scores

    return compare


@pytest.mark.parametrize("unknown", [True, False], ids=["with <unk>", "without <unk>"])
def test_the_mixture_has_the_best_weight_of_the_validation_set(corpus, compared, unknown):
    vocabulary = corpus[2]
    if not unknown:
        vocabulary = Vocabulary(vocabulary.words, tuple(
            count * (word != "<unk>") for word, count in zip(vocabulary.words, vocabulary.counts)))
    result, scores = compared(vocabulary)

    def naive(name, weight):
        network, ngrams, targets = scores[name]
        counted = targets >= 0 if unknown else targets != vocabulary.unknown
        assert unknown or not counted.all()
        mixed = weight * np.exp(network.astype("float64")) + (1 - weight) * np.exp(ngrams)
        return math.exp(-np.log(mixed[counted]).mean())

    weight = result["mixture"]["network_weight"]
    every = np.linspace(0.001, 0.999, 999)
    best = every[np.argmin([naive("valid", each) for each in every])]
    assert weight == pytest.approx(best, abs=2e-3) and 0.01 < weight < 0.99
    assert result == {
        "baselines": {"kneser_ney_3": pytest.approx(
            {name: naive(name, 0) for name in ("valid", "test")})},
        "mixture": {"baseline": "kneser_ney_3", "order": 3, "network_weight": weight,
                    **{name: pytest.approx(naive(name, weight)) for name in ("valid", "test")}},
    }


def test_without_an_unknown_word_in_training_only_the_rest_counts(tmp_path, make_shards):
    train = ["the lamp burns", "the oil burns"]
    shards, vocabulary = make_shards(tmp_path / "train", [train])
    assert headline(vocabulary) == "perplexity_without_unk"
    (tmp_path / "text.txt").write_text("the zebra burns\n")
    write_tokens(tmp_path / "text.txt", tmp_path / "tokens.h5", lowercase=True)
    write_shard(tmp_path / "tokens.h5", vocabulary, tmp_path / "shard.h5")
    reader = ShardReader([tmp_path / "shard.h5"])
    bigrams = Bigrams.count(shards, vocabulary)
    result = baselines(bigrams, reader, {"test": reader}, vocabulary)
    smoothing = result["unigram"]["smoothing"]
    totals = evaluate(bigrams.unigram(smoothing), reader, vocabulary).totals
    assert totals.out_of_vocabulary == 1
    assert result["unigram"]["test"] == totals.figures()["perplexity_without_unk"]
    assert headline(Vocabulary(vocabulary.words, (1,) * len(vocabulary))) == "perplexity"
