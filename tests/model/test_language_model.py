"""The Python interface: the same figures as the compiled network's, and as numpy's in float64."""

import doctest
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import model.language_model
from model.__main__ import main
from model.current import link_to
from model.data.vocabulary import UNKNOWN
from model.inference import log_probabilities_of, next_word_of
from model.language_model import LanguageModel
from model.sampling import sample
from model.system.errors import UserError
from tests.jobs import REPOSITORY
from tests.lstm_reference import forward_and_gradients
from tests.models import LINES, NETWORKS, random_model, write_model

TEXT = [*LINES, "And God called xyzzy Light.", "", "god"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", params=NETWORKS)
def each(request, folder):
    """A model's file and its checkpoint, for each kind of network."""
    path = folder / f"{request.param}.h5"
    return path, write_model(path, NETWORKS[request.param])


@pytest.fixture(scope="module")
def one(folder):
    path = folder / "work" / "models" / "f00d" / "model.h5"
    checkpoint = write_model(path)
    link_to(path, folder / "work")
    return path, checkpoint


@pytest.fixture(scope="module")
def lm(one):
    return LanguageModel.load(one[0])


def test_it_agrees_with_the_compiled_network(each):
    path, checkpoint = each
    compiled = log_probabilities_of(checkpoint, "cpu")
    vocabulary = checkpoint.vocabulary
    tokens = 0
    for score in LanguageModel.load(path).score(TEXT):
        if score.tokens:
            targets = vocabulary.encode(score.tokens)[None]
            inputs = np.roll(targets, 1)
            inputs[0, 0] = vocabulary.start
            assert np.abs(score.log_probabilities - compiled(inputs, targets)[0]).max() < 1e-5
            tokens += targets.size
    assert tokens > 80


@pytest.mark.parametrize("name", [name for name in NETWORKS if NETWORKS[name].num_layers == 1])
def test_it_agrees_with_double_precision(folder, name):
    config = NETWORKS[name]
    path = folder / "double.h5"
    checkpoint = write_model(path, config)
    named = {key.removeprefix("lstm1.").replace("softmax.", "softmax_"): value
             for key, value in checkpoint.parameters.items()}
    for score in LanguageModel.load(path).score(LINES):
        targets = checkpoint.vocabulary.encode(score.tokens)[None]
        inputs = np.roll(targets, 1)
        inputs[0, 0] = checkpoint.vocabulary.start
        loss, _ = forward_and_gradients(named, inputs, targets, peepholes=config.peepholes)
        assert score.log_probability == pytest.approx(-loss, abs=1e-5)


@pytest.mark.parametrize("split, lowercase", [("words", True), ("spaces", False)])
def test_it_says_what_the_command_score_says(folder, capsys, split, lowercase):
    path, text = folder / f"{split}.h5", folder / "text.txt"
    write_model(path, split=split, lowercase=lowercase)
    text.write_text("".join(f"{line}\n" for line in TEXT))
    assert main(["score", str(text), "--model", str(path), "--words", "--format", "json"]) == 0
    *rows, total = map(json.loads, capsys.readouterr().out.splitlines())
    lm = LanguageModel.load(path)
    scores = lm.score(TEXT)
    assert [[word["word"] for word in row["words"]] for row in rows] \
        == [list(score.tokens) for score in scores]
    assert [[word["oov_count"] for word in row["words"]] for row in rows] \
        == [(~score.known).tolist() for score in scores]
    for row, score in zip(rows, scores):
        assert score.log_probability == pytest.approx(row["log_probability"], abs=1e-5)
        assert (math.isnan(score.perplexity) if row["perplexity"] is None
                else score.perplexity == pytest.approx(row["perplexity"], rel=1e-5))
    # An empty line is no sentence, or is one of its end alone.
    assert scores[-2].tokens == (() if split == "words" else ("</s>",))
    for without in (False, True):
        name = "perplexity_without_unk" if without else "perplexity"
        assert lm.perplexity(iter(TEXT), without_unknown=without) \
            == pytest.approx(total[name], rel=1e-5)


def test_many_sentences_are_scored_as_each_alone(lm, monkeypatch):
    alone = [lm.score([line])[0] for line in TEXT]
    monkeypatch.setattr(model.language_model, "_SENTENCES_PER_BLOCK", 4)
    for one, many in zip(alone, lm.score(TEXT), strict=True):
        assert one.tokens == many.tokens
        assert np.allclose(one.log_probabilities, many.log_probabilities, atol=1e-5)
    assert lm.score([]) == [] and math.isnan(lm.perplexity([]))


def test_word_by_word_is_as_all_at_once(each):
    lm = LanguageModel.load(each[0])
    for score in lm.score(LINES):
        state = lm.state()
        found = [state.log_probability(score.tokens[0])]
        for before, after in zip(score.tokens, score.tokens[1:]):
            state = state.after(before)
            found.append(state.log_probability(after))
        assert np.abs(score.log_probabilities - found).max() < 1e-5


def test_a_state_stays_and_several_ways_go_on_from_it(lm):
    state = lm.state("And God")
    before = state.log_probabilities.copy()
    said, called = state.after("said"), state.after("called")
    assert said.words == ("and", "god", "said") and state.words == ("and", "god")
    assert not np.array_equal(said.log_probabilities, called.log_probabilities)
    assert np.array_equal(state.log_probabilities, before)
    assert np.array_equal(lm.state("And God said").log_probabilities, said.log_probabilities)
    with pytest.raises(ValueError, match="read-only"):
        state.log_probabilities[0] = 0
    for border in ("<s>", "</s>"):
        with pytest.raises(ValueError, match="border of a sentence"):
            state.after(border)


def test_the_next_words_are_those_of_the_compiled_network(each):
    path, checkpoint = each
    lm = LanguageModel.load(path)
    vocabulary = checkpoint.vocabulary
    inputs = np.array([[vocabulary.start, *vocabulary.encode(["and", "god"])]], "int32")
    wanted = next_word_of(checkpoint, "cpu")(inputs)[0]
    found = lm.next_words("And God", count=len(lm.vocabulary))
    assert sum(probability for _, probability in found) == pytest.approx(1, abs=1e-5)
    assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)
    for word, probability in found:
        assert probability == pytest.approx(wanted[vocabulary.encode([word])[0]], abs=1e-6)
    assert lm.next_words("And God", count=3) == found[:3]


def test_sentences_are_drawn_as_the_command_draws_them(one, lm):
    _, checkpoint = one
    vocabulary = checkpoint.vocabulary
    for temperature in (0, 0.7):
        drawn = sample(next_word_of(checkpoint, "cpu"), vocabulary, count=3, seed=5, max_words=20,
                       temperature=temperature, prefix=vocabulary.encode(["in", "the"]))
        wanted = [" ".join(["in", "the", *(vocabulary.words[n] for n in words)])
                  for words in drawn]
        assert lm.sample(3, prefix="In the", seed=5, max_words=20,
                         temperature=temperature) == wanted
    assert lm.sample(2) != lm.sample(2)
    assert not any(UNKNOWN in sentence for sentence in lm.sample(20))
    assert lm.sample(1, prefix="Xyzzy", max_words=0) == ["xyzzy"]


def test_the_current_model_is_taken_where_none_is_named(one, lm, monkeypatch, tmp_path):
    monkeypatch.setenv("PIPELINE_WORK", str(one[0].parents[2]))
    assert LanguageModel.load().score(LINES[:1])[0].log_probability \
        == lm.score(LINES[:1])[0].log_probability
    with pytest.raises(UserError, match="current-other"):
        LanguageModel.load(profile="other")
    monkeypatch.setenv("PIPELINE_WORK", str(tmp_path))
    with pytest.raises(UserError, match="no complete run in"):
        LanguageModel.load()


def test_what_cannot_be_used_is_told(lm, tmp_path):
    with pytest.raises(UserError, match="no checkpoint|cannot be used"):
        LanguageModel.load(tmp_path / "nothing.h5")
    (tmp_path / "text.h5").write_text("no model\n")
    with pytest.raises(UserError, match="cannot be used as a model"):
        LanguageModel.load(tmp_path / "text.h5")
    with pytest.raises(TypeError, match="put it in brackets"):
        lm.score("In the beginning")
    for options in ({"count": -1}, {"seed": -1}, {"temperature": -0.1},
                    {"temperature": math.nan}):
        with pytest.raises(ValueError, match="at least 0"):
            lm.sample(**{"count": 1, **options})
    write_model(tmp_path / "spaces.h5", split="spaces", lowercase=False)
    with pytest.raises(ValueError, match="sentence 2: </s> within the line"):
        LanguageModel.load(tmp_path / "spaces.h5").score(["a b", "a </s> b"])


def test_weights_of_another_network_are_refused(tmp_path):
    from model.checkpoint import write_checkpoint

    for change, message in ((lambda p: p.pop("softmax.b"), "needs softmax.b as float32 of shape"),
                            (lambda p: p.update(more=np.zeros(1, "float32")), "has no more"),
                            (lambda p: p["softmax.b"].fill(np.nan), "softmax.b is not finite")):
        checkpoint = random_model(NETWORKS["as the default"])
        change(checkpoint.parameters)
        write_checkpoint(tmp_path / "model.h5", checkpoint)
        with pytest.raises(UserError, match=message):
            LanguageModel.load(tmp_path / "model.h5")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_weights_are_those_of_the_network_in_lasagne(name):
    from model.network import all_parameters, build_network

    network = build_network(NETWORKS[name], 11)
    assert NETWORKS[name].parameter_shapes(11) == {
        parameter.name: parameter.get_value().shape for parameter in all_parameters(network)}


def test_the_examples_run(one, monkeypatch):
    monkeypatch.setenv("PIPELINE_WORK", str(one[0].parents[2]))
    monkeypatch.setitem(sys.modules, "lstm_model", model.language_model)
    found = [test for test in doctest.DocTestFinder().find(LanguageModel, "LanguageModel")
             if test.examples]
    runner = doctest.DocTestRunner()
    for test in found:
        runner.run(test)
    assert runner.failures == 0 and len(found) == 6


def test_the_documented_examples_run(one, monkeypatch, tmp_path):
    monkeypatch.setenv("PIPELINE_WORK", str(one[0].parents[2]))
    monkeypatch.setitem(sys.modules, "lstm_model", model.language_model)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "valid.txt").write_text("".join(f"{line}\n" for line in LINES))
    for name in ("docs/using.md", "README.md"):
        blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / name).read_text(), re.DOTALL)
        block, = [block for block in blocks if "import LanguageModel" in block]
        exec(block, {})


def test_it_loads_neither_theano_nor_polars(one):
    code = """
import sys
from model.language_model import LanguageModel
model = LanguageModel.load(sys.argv[1])
model.score(["In the beginning"]), model.sample(1), model.next_words("and")
others = {name.partition(".")[0] for name in sys.modules} - {*sys.stdlib_module_names}
print(*sorted(others - {*sys.argv[2:]}))
"""
    # What the environment itself has loaded before.
    before = subprocess.run(
        [sys.executable, "-c", "import sys; print(*{n.partition('.')[0] for n in sys.modules})"],
        capture_output=True, text=True, check=True).stdout.split()
    done = subprocess.run([sys.executable, "-c", code, one[0], *before], text=True, check=True,
                          stdout=subprocess.PIPE, env={**os.environ, "PYTHONSAFEPATH": "1",
                                                       "PYTHONPATH": os.getcwd()})
    # h5py's and numpy's own compiled parts have no package.
    loaded = {name for name in done.stdout.split() if not name.startswith("_")}
    assert loaded - {"cython_runtime"} == {"h5py", "model", "numpy"}
