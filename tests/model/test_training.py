"""Training: it reaches what can be reached, and a stop at any moment changes nothing."""

import csv
import itertools
import json
import math
import re
import shutil
from types import SimpleNamespace

from model import engine  # noqa: F401  isort: skip

import h5py
import lasagne
import numpy as np
import pytest
import theano

from model import training, training_log
from model.checkpoint import read_checkpoint
from model.configuration import OPTIMISERS, NetworkConfig, TrainingConfig
from model.data.shards import ShardReader, write_shard
from model.evaluation import evaluate
from model.inference import load_network
from model.lineage import TrainingText
from model.network import build_network, compile_log_probabilities
from model.system.errors import DamagedFile, UserError
from model.training import Diverged, Stopped, TrainingJob, train
from model.work_clock import WorkClock
from pipeline.tokens import write_tokens

CONFIG = dict(
    optimiser="adam", rate=0.02, window=32, denominator="sentences", micro_batch_sentences=16,
    micro_batch_tokens=512, max_epochs=2, max_minutes=0, cooldown=0.5, validations_per_epoch=2,
    patience=4, shards_in_memory=2, seed=1, max_norm=5, beta1=0.8, weight_decay=0.01)

WORDS = list("abcdef")


def markov_chain(random):
    """A chain over WORDS and the end: rows of transition probabilities, the last row the start."""
    size = len(WORDS)
    matrix = random.dirichlet(np.full(size + 1, 0.3), size + 1)
    matrix[:, -1] = 0.12  # of the end, so that lengths vary and none is without bound
    matrix[-1, -1] = 0
    matrix[:, :-1] *= ((1 - matrix[:, -1]) / matrix[:, :-1].sum(1))[:, None]
    return matrix


def sample(random, matrix, sentences):
    result = []
    for _ in range(sentences):
        words, state = [], len(WORDS)
        while True:
            state = random.choice(len(WORDS) + 1, p=matrix[state])
            if state == len(WORDS):
                break
            words.append(WORDS[state])
        result.append(" ".join(words))
    return result


def true_perplexity(matrix):
    """Exponential of the entropy per token, the end included, of an infinite sample."""
    size = len(WORDS)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropies = -np.where(matrix > 0, matrix * np.log(matrix), 0).sum(1)
    # Expected visits of each state in a sentence: start, then visits = start + visits @ inner.
    visits = np.linalg.solve(np.eye(size) - matrix[:size, :size].T, matrix[size, :size])
    return math.exp((entropies[size] + visits @ entropies[:size]) / (1 + visits.sum()))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_shards, device):
    """Shards of a sample of the chain, three parts to train on, one to validate; and the device."""
    random = np.random.default_rng(7)
    matrix = markov_chain(random)
    parts = [sample(random, matrix, 700) for _ in range(4)]
    shards, vocabulary = make_shards(tmp_path_factory.mktemp("markov"), parts)
    return matrix, shards[:3], shards[3:], vocabulary, device


def job(folder, corpus, network=None, checkpoint_minutes=60.0, previous=None, text=None,
        **changes):
    _, train_shards, valid_shards, vocabulary, device = corpus
    return TrainingJob(
        folder=folder, train_shards=train_shards, valid_shards=valid_shards,
        vocabulary=vocabulary,
        network=network or NetworkConfig(12, dropout=0.1, recurrent_dropout=0.1,
                                         input_dropout=0.05),
        training=TrainingConfig(**{**CONFIG, **changes}), tokenization={"lowercase": True},
        source="test", checkpoint_minutes=checkpoint_minutes, text=text,
        previous=previous, device=device.name)


def log_without_times(path):
    return [{key: value for key, value in json.loads(line).items()
             if key not in ("seconds", "tokens_per_second")}
            for line in path.read_text().splitlines()]


def table(path):
    """The log as CSV: the names, and its rows."""
    with open(path.with_suffix(".csv"), newline="") as file:
        names, *rows = csv.reader(file)
    return names, [dict(zip(names, row, strict=True)) for row in rows]


def pretend_to_evaluate(monkeypatch, perplexities):
    """Let the validations give these figures, one after the other."""
    given = iter(perplexities)

    def evaluation(*_):
        perplexity = next(given)
        return SimpleNamespace(totals=SimpleNamespace(figures=lambda: dict.fromkeys(
            ("perplexity", "perplexity_without_unk"), perplexity)))

    monkeypatch.setattr(training, "evaluate", evaluation)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, corpus):
    done = job(tmp_path_factory.mktemp("uninterrupted"), corpus)
    train(done)
    return done


def test_comes_within_five_per_cent_of_the_true_perplexity(tmp_path, corpus):
    learned = job(tmp_path, corpus, NetworkConfig(24), max_epochs=6)
    train(learned)
    best = read_checkpoint(learned.model).position["best_perplexity"]
    assert best == pytest.approx(true_perplexity(corpus[0]), rel=0.05)


def test_the_log_has_a_line_for_every_update_and_validation(uninterrupted, corpus):
    sentences = sum(ShardReader(corpus[1]).step_counts.values())
    per_epoch = math.ceil(sentences / CONFIG["window"])
    lines = log_without_times(uninterrupted.log)
    updates = [line for line in lines if "gradient_norm" in line]
    assert [line["update"] for line in updates] == list(range(1, 2 * per_epoch + 1))
    assert sum(line["sentences"] for line in updates) == 2 * sentences
    last_of_epoch = updates[per_epoch - 1]["sentences"]
    assert last_of_epoch == sentences - (per_epoch - 1) * CONFIG["window"]
    validations = [line for line in lines if "validation_perplexity" in line]
    assert len(validations) == 4
    assert read_checkpoint(uninterrupted.last).history == validations
    assert updates[-1]["rate"] < updates[0]["rate"] == CONFIG["rate"]


def check_table(log):
    """The table of a log holds what its JSON lines hold, and no more."""
    names, rows = table(log)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert tuple(names) == training_log.COLUMNS
    tokens = 0
    for entry, row in zip(entries, rows, strict=True):
        kind = "validation" if "validation_perplexity" in entry else "update"
        if kind == "update":
            tokens += entry["tokens"]
        else:
            assert entry.pop("tokens") == tokens
        assert row.pop("kind") == kind and row.pop("all_tokens") == str(tokens)
        assert {name: float(text) for name, text in row.items() if text} == entry


def test_the_table_of_the_log_holds_the_same(uninterrupted):
    check_table(uninterrupted.log)
    for name in training_log.COLUMNS:
        assert re.search(rf"^{name}\b|^\w+, {name}\b", training_log.__doc__, re.MULTILINE)


def test_a_word_that_training_never_has_does_not_choose_the_best(tmp_path, corpus):
    matrix, train_shards, _, vocabulary, device = corpus
    assert not vocabulary.counts[vocabulary.unknown]
    lines = sample(np.random.default_rng(8), matrix, 50)
    (tmp_path / "text.txt").write_text("".join(f"{line} zebra\n" for line in lines))
    write_tokens(tmp_path / "text.txt", tmp_path / "tokens.h5", lowercase=True)
    write_shard(tmp_path / "tokens.h5", vocabulary, tmp_path / "valid.h5")
    valid_shards = [tmp_path / "valid.h5"]
    learned = job(tmp_path, (matrix, train_shards, valid_shards, vocabulary, device),
                  max_epochs=1)
    train(learned)
    checkpoint = read_checkpoint(learned.model)
    score = compile_log_probabilities(load_network(checkpoint, device))
    figures = evaluate(score, ShardReader(valid_shards), vocabulary).totals.figures()
    assert figures["perplexity"] > 1.2 * figures["perplexity_without_unk"]
    assert checkpoint.position["best_perplexity"] == pytest.approx(
        figures["perplexity_without_unk"], rel=1e-6)


@pytest.mark.parametrize("stop_at", [3, 150, 333])
def test_a_stopped_training_ends_bit_identical(tmp_path, corpus, uninterrupted, stop_at):
    """`stop_at` counts micro-batches and validation batches: in a window, in a validation."""
    stopped = job(tmp_path, corpus, checkpoint_minutes=0.0)
    asked = iter(range(10**9))
    with pytest.raises(Stopped, match="goes on from"):
        train(stopped, should_stop=lambda: next(asked) == stop_at)
    assert not stopped.model.exists()
    # What a killed run can leave behind: lines after the checkpoint, the last one half-written.
    with open(stopped.log, "a") as log:
        log.write(json.dumps({"update": 10**6, "seconds": 1.0}) + '\n{"upd')
    with open(stopped.log.with_suffix(".csv"), "a") as rows:
        rows.write("update,1000000,\nupd")
    train(stopped)
    for name in ("model", "last", "best"):
        assert getattr(stopped, name).read_bytes() == getattr(uninterrupted, name).read_bytes()
    assert log_without_times(stopped.log) == log_without_times(uninterrupted.log)
    check_table(stopped.log)


def test_a_loss_that_is_not_finite_is_named_and_the_checkpoint_kept(
        tmp_path, corpus, monkeypatch):
    broken = job(tmp_path, corpus, checkpoint_minutes=0.0)
    real, calls = training.Trainer, iter(range(10**9))

    def trainer(*arguments):
        result = real(*arguments)
        loss = result.loss
        result.loss = lambda: float("nan") if next(calls) == 6 else loss()
        return result

    monkeypatch.setattr(training, "Trainer", trainer)
    with pytest.raises(Diverged, match=r"from update 6 on: .* nan.* Lower .*last\.h5"):
        train(broken)
    assert all(np.isfinite(v).all() for v in read_checkpoint(broken.last).parameters.values())
    assert not broken.model.exists()


@pytest.mark.parametrize("checkpoint_minutes", [0.0, 60.0])
def test_a_diverged_training_is_noticed_within_a_window(tmp_path, corpus, checkpoint_minutes):
    """Momentum of rate 1000: the loss stays finite, and is absurd."""
    broken = job(tmp_path, corpus, optimiser="momentum", rate=1000.0,
                 checkpoint_minutes=checkpoint_minutes)
    with pytest.raises(Diverged, match=r"from update 1 on: .*Lower \[training\] rate"):
        train(broken)
    assert not broken.model.exists() and not broken.best.exists()
    if checkpoint_minutes == 0:  # what is kept is from before the step that spoiled it
        assert read_checkpoint(broken.last).position["updates"] == 0


def test_a_validation_that_is_not_finite_is_never_published(tmp_path, corpus, monkeypatch):
    pretend_to_evaluate(monkeypatch, itertools.repeat(math.inf))
    broken = job(tmp_path, corpus)
    with pytest.raises(Diverged, match="not finite"):
        train(broken)
    assert not broken.model.exists() and not broken.best.exists()


def test_a_training_worse_than_guessing_is_not_published(tmp_path, corpus, monkeypatch):
    pretend_to_evaluate(monkeypatch, itertools.repeat(len(corpus[3]) * 1.01))
    with theano.configparser.change_flags(linker="py", optimizer="fast_compile"):
        for _ in range(2):  # and not by the next run either
            with pytest.raises(Diverged, match="guessing"):
                train(job(tmp_path, corpus, NetworkConfig(3), window=1024, max_epochs=1))
    assert not job(tmp_path, corpus).model.exists()


def test_a_validation_that_outlasts_the_time_budget_ends_the_training(
        tmp_path, corpus, monkeypatch):
    real = training.evaluate
    late = []

    def evaluate(*arguments):
        late.append(True)
        return real(*arguments)

    monkeypatch.setattr(training, "evaluate", evaluate)
    monkeypatch.setattr(WorkClock, "seconds", lambda _: 10.0 + 600 * len(late))
    with theano.configparser.change_flags(linker="py", optimizer="fast_compile"):
        short = job(tmp_path, corpus, NetworkConfig(3), window=512, max_minutes=5.0)
        train(short)
    rates = [line["rate"] for line in log_without_times(short.log) if "rate" in line]
    assert rates and min(rates) > 0
    last = read_checkpoint(short.last).position
    assert last["finished"] == "max_minutes" and last["updates"] == len(rates)


def test_a_warm_start_whose_first_validation_takes_all_the_time_ends_after_one_update(
        tmp_path, corpus, uninterrupted, monkeypatch):
    monkeypatch.setattr(WorkClock, "seconds", lambda _: 600.0)
    warm = job(tmp_path, corpus, previous=uninterrupted.model, max_minutes=5.0)
    train(warm)
    (update,) = (line for line in log_without_times(warm.log) if "rate" in line)
    assert update["rate"] == 0
    assert read_checkpoint(warm.last).position["finished"] == "max_minutes"
    before, after = (read_checkpoint(each.model).parameters for each in (uninterrupted, warm))
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_a_damaged_checkpoint_is_named_and_set_aside(tmp_path, corpus):
    damaged = job(tmp_path, corpus, checkpoint_minutes=0.0)
    asked = iter(range(10**9))
    with pytest.raises(Stopped):
        train(damaged, should_stop=lambda: next(asked) == 3)
    content = damaged.last.read_bytes()
    damaged.last.write_bytes(content[:len(content) // 2])
    with pytest.raises(DamagedFile, match="last.h5"):
        train(damaged)
    assert not damaged.last.exists()


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_lost_best_checkpoint_is_named_and_the_next_run_trains_anew(
        tmp_path, corpus, uninterrupted, harm):
    ended = job(tmp_path, corpus)
    for name in ("best", "last", "log"):
        shutil.copyfile(getattr(uninterrupted, name), getattr(ended, name))
    if harm == "gone":
        ended.best.unlink()
    else:
        ended.best.write_bytes(ended.best.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match="best.h5"):
        train(ended)
    assert not ended.model.exists()
    train(ended)
    assert ended.model.read_bytes() == uninterrupted.model.read_bytes()


def test_an_epoch_and_a_half_ends_amid_the_second_with_a_rate_near_zero(tmp_path, corpus):
    sentences = sum(ShardReader(corpus[1]).step_counts.values())
    per_epoch = math.ceil(sentences / 128)
    with theano.configparser.change_flags(linker="py", optimizer="fast_compile"):
        part = job(tmp_path, corpus, NetworkConfig(3), max_epochs=1.5, window=128)
        train(part)
    updates = [line for line in log_without_times(part.log) if "rate" in line]
    assert [line["epoch"] for line in updates] == [0] * per_epoch + [1] * math.ceil(per_epoch / 2)
    assert 0 < updates[-1]["rate"] < CONFIG["rate"] / 10 and updates[0]["rate"] == CONFIG["rate"]
    assert log_without_times(part.log)[-1]["update"] == len(updates)
    assert "validation_perplexity" in log_without_times(part.log)[-1]
    last = read_checkpoint(part.last).position
    assert last["finished"] == "max_epochs" and last["updates"] == len(updates)


def test_a_stall_halves_the_rate_and_patience_ends_the_training(tmp_path, corpus, monkeypatch):
    pretend_to_evaluate(monkeypatch, [9.0, 8.0, 8.5, 8.0, 7.0, 7.5, 7.5, 7.5])
    stalled = job(tmp_path, corpus, patience=3, max_epochs=9, cooldown=0.0, window=256)
    train(stalled)
    last = read_checkpoint(stalled.last)
    assert last.position["finished"] == "stalled"
    assert [entry["halvings"] for entry in last.history] == [0, 0, 1, 2, 2, 3, 4, 5]
    assert read_checkpoint(stalled.model).position["best_perplexity"] == 7.0
    assert last.position["stalled_at"] < 1
    halvings, rates = 0, []
    for line in log_without_times(stalled.log):
        halvings = line.get("halvings", halvings)
        if "rate" in line:
            rates.append((halvings, line["rate"]))
    assert {rate / 0.5**halvings for halvings, rate in rates} == {CONFIG["rate"]}
    assert len(set(rates)) == 5


def test_a_stalled_training_cools_down_before_it_ends(tmp_path, corpus, monkeypatch):
    pretend_to_evaluate(monkeypatch, itertools.repeat(5.0))
    with theano.configparser.change_flags(linker="py", optimizer="fast_compile"):
        stalled = job(tmp_path, corpus, NetworkConfig(3), patience=1, max_epochs=9, cooldown=0.5,
                      window=128)
        train(stalled)
    position = read_checkpoint(stalled.last).position
    lines = log_without_times(stalled.log)
    rates = [line["rate"] for line in lines if "rate" in line]
    assert position["finished"] == "stalled" and len(rates) < 9 * 17
    at = next(line["update"] for line in lines if line.get("halvings") == 1)
    # As many updates follow the stall as came before it, and the rate falls to zero over them.
    assert len(rates) == pytest.approx(2 * at, abs=1)
    halvings = [line["halvings"] for line in lines if "halvings" in line]
    falling = [rate / CONFIG["rate"] for rate in rates[at:]]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] == pytest.approx(0.5) and falling[-1] < 0.5 ** halvings[-2] / (at / 2)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_optimiser_goes_on_where_it_was_stopped(tmp_path, corpus, optimiser):
    rate = 1.0 if optimiser == "adadelta" else 0.01
    options = dict(optimiser=optimiser, rate=rate, window=512, max_epochs=1)
    with theano.configparser.change_flags(linker="py", optimizer="fast_compile"):
        whole = job(tmp_path / "whole", corpus, NetworkConfig(3), **options)
        train(whole)
        stopped = job(tmp_path / "stopped", corpus, NetworkConfig(3), checkpoint_minutes=0.0,
                      **options)
        asked = iter(range(10**9))
        with pytest.raises(Stopped):
            train(stopped, should_stop=lambda: next(asked) == 100)
        train(stopped)
    assert stopped.model.read_bytes() == whole.model.read_bytes()
    start, end = (read_checkpoint(whole.model).history[n]["validation_perplexity"]
                  for n in (0, -1))
    assert end < start


def test_a_time_budget_that_is_not_met_changes_nothing(tmp_path, corpus, uninterrupted):
    bounded = job(tmp_path, corpus, max_minutes=1000.0)
    train(bounded)
    for name, value in read_checkpoint(uninterrupted.model).parameters.items():
        np.testing.assert_array_equal(read_checkpoint(bounded.model).parameters[name], value)


def test_the_time_budget_ends_the_training_with_a_usable_model(tmp_path, corpus, monkeypatch):
    ticks = iter(range(10**9))
    short = job(tmp_path, corpus, max_minutes=1.0)
    monkeypatch.setattr(WorkClock, "seconds", lambda clock: 0.1 * next(ticks))
    train(short)
    position = read_checkpoint(short.model).position
    assert position["finished"] == "max_minutes"
    assert 1 < position["best_perplexity"] < len(corpus[3])


def test_a_warm_start_carries_weights_over_by_word(tmp_path, corpus, uninterrupted, make_shards):
    shards, vocabulary = make_shards(tmp_path / "new", [["new a new b", "c a new"] * 20] * 2)
    grown = (None, shards[:1], shards[1:], vocabulary, corpus[-1])
    warm = job(tmp_path, grown, previous=uninterrupted.model, rate=1e-30, max_epochs=1)
    train(warm)
    before, after = read_checkpoint(uninterrupted.model), read_checkpoint(warm.model)
    for word in ("a", "b", "<s>", "<unk>"):
        old, new = before.vocabulary.words.index(word), vocabulary.words.index(word)
        for name, axis in (("lstm1.W_in_to_cell", 0), ("softmax.W", 1), ("softmax.b", 0)):
            np.testing.assert_array_equal(after.parameters[name].take(new, axis),
                                          before.parameters[name].take(old, axis))
    lasagne.random.set_rng(np.random.RandomState(CONFIG["seed"]))
    fresh = build_network(NetworkConfig(12), len(vocabulary)).parameters
    W_in = next(p for p in fresh if p.name == "lstm1.W_in_to_cell").get_value()
    np.testing.assert_array_equal(
        after.parameters["lstm1.W_in_to_cell"][vocabulary.words.index("new")],
        W_in[vocabulary.words.index("new")])
    np.testing.assert_array_equal(after.parameters["lstm1.W_hid_to_cell"],
                                  before.parameters["lstm1.W_hid_to_cell"])
    assert after.ancestry[0]["updates"] == before.position["updates"]


def test_a_parent_of_another_shape_is_refused(tmp_path, corpus, uninterrupted):
    other = job(tmp_path, corpus, NetworkConfig(5), previous=uninterrupted.model, max_epochs=1)
    with pytest.raises(UserError, match="another shape"):
        train(other)
    assert not other.model.exists()


def test_a_warm_start_is_validated_first_and_never_ends_worse(tmp_path, corpus, uninterrupted):
    parent = read_checkpoint(uninterrupted.model)
    spoiled = job(tmp_path, corpus, previous=uninterrupted.model, rate=2.0, max_epochs=1,
                  text=TrainingText(3, {"valid": 0.1, "test": 0.1},
                                    {"valid": None, "test": None}, {}))
    train(spoiled)
    result = read_checkpoint(spoiled.model)
    assert result.history[0]["update"] == 0
    assert [entry["update"] for entry in result.history[1:]] == []
    assert len(read_checkpoint(spoiled.last).history) > 2
    best = parent.position["best_perplexity"]
    assert result.position["best_perplexity"] == best
    for name, value in parent.parameters.items():
        np.testing.assert_array_equal(result.parameters[name], value)
    assert result.ancestry[0]["best_perplexity"] == best
    assert result.text == spoiled.text and result.ancestors_text is None


@pytest.mark.parametrize("change", [
    {"optimiser": "newton"}, {"denominator": "words"}, {"window": 0}])
def test_a_setting_that_makes_no_sense_is_named(change):
    with pytest.raises(UserError, match=next(iter(change))):
        TrainingConfig(**{**CONFIG, **change})


def test_a_checkpoint_holds_only_numbers_and_text(uninterrupted):
    kinds = set()
    with h5py.File(uninterrupted.model) as file:
        file.visititems(lambda _, item: kinds.add(
            item.dtype.kind if isinstance(item, h5py.Dataset) else "group"))
    assert kinds <= {"f", "i", "u", "group"}
