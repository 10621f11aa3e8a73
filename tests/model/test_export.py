"""Exported models, read by others: onnxruntime, and ten lines of numpy."""

import json
import re

import numpy as np
import pytest

from model.__main__ import main
from model.inference import log_probabilities_of
from model.language_model import LanguageModel
from tests.jobs import REPOSITORY
from tests.models import LINES, NETWORKS, random_model, write_model

pytestmark = pytest.mark.extras

DOCUMENT = REPOSITORY / "docs" / "using.md"


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request, tmp_path_factory):
    """A checkpoint, and the sessions of its two ONNX files."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="make test-extras installs it")
    folder = tmp_path_factory.mktemp("export")
    checkpoint = write_model(folder / "model.h5", NETWORKS[request.param])
    assert main(["export", "--model", str(folder / "model.h5"), "--format", "onnx",
                 str(folder / "out.onnx")]) == 0
    assert {path.name for path in folder.glob("out*")} == {"out.onnx", "out.step.onnx"}
    return checkpoint, *(onnxruntime.InferenceSession(folder / name)
                         for name in ("out.onnx", "out.step.onnx"))


def sentences(checkpoint, count):
    """The targets of some real sentences, all cut to one length."""
    tokens = [score.tokens for score in language_model(checkpoint).score(LINES * count)]
    steps = min(map(len, tokens))
    targets = np.array([checkpoint.vocabulary.encode(each)[:steps] for each in tokens[:count]],
                       "int64")
    return inputs_of(targets, checkpoint), targets


def language_model(checkpoint):
    from model.inference import load_numpy_network

    return LanguageModel(checkpoint.vocabulary, checkpoint.settings["tokenization"],
                         load_numpy_network(checkpoint))


def inputs_of(targets, checkpoint):
    inputs = np.roll(targets, 1, axis=1)
    inputs[:, 0] = checkpoint.vocabulary.start
    return inputs


def test_whole_sentences_have_the_scores_of_the_compiled_network(exported):
    checkpoint, whole, _ = exported
    compiled = log_probabilities_of(checkpoint, "cpu")
    for score in language_model(checkpoint).score(LINES):
        targets = checkpoint.vocabulary.encode(score.tokens)[None].astype("int64")
        inputs = inputs_of(targets, checkpoint)
        found, = whole.run(None, {"inputs": inputs, "targets": targets})
        wanted = compiled(inputs.astype("int32"), targets.astype("int32"))
        assert found.shape == targets.shape and np.abs(found - wanted).max() < 1e-5


@pytest.mark.parametrize("batch", [1, 5])
def test_any_batch_and_word_by_word(exported, batch):
    checkpoint, whole, step = exported
    inputs, targets = sentences(checkpoint, batch)
    wanted, = whole.run(None, {"inputs": inputs, "targets": targets})
    layers, units = NETWORKS["as the default"].num_layers, 8
    layers = checkpoint.settings["network"]["num_layers"]
    # What lies in the states before does not matter: each sentence begins with <s>.
    hidden, cell = np.full((2, layers, batch, units), 7, "float32")
    for place in range(inputs.shape[1]):
        scores, hidden, cell = step.run(
            ["log_probabilities", "hidden_after", "cell_after"],
            {"words": inputs[:, place], "hidden": hidden, "cell": cell})
        assert scores.shape == (batch, len(checkpoint.vocabulary))
        assert hidden.shape == cell.shape == (layers, batch, units)
        found = scores[np.arange(batch), targets[:, place]]
        assert np.abs(found - wanted[:, place]).max() < 1e-5
        assert np.allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)


def test_words_added_at_the_end_change_nothing_before(exported):
    checkpoint, whole, _ = exported
    inputs, targets = sentences(checkpoint, 2)
    wanted, = whole.run(None, {"inputs": inputs, "targets": targets})
    padded = [np.pad(each, ((0, 0), (0, 3))) for each in (inputs, targets)]
    found, = whole.run(None, dict(zip(("inputs", "targets"), padded)))
    assert np.abs(found[:, :-3] - wanted).max() < 1e-6


def test_vocabulary_and_tokenization_travel_with_it(exported):
    checkpoint, *sessions = exported
    for session in sessions:
        metadata = session.get_modelmeta().custom_metadata_map
        assert json.loads(metadata["vocabulary"]) == list(checkpoint.vocabulary.words)
        assert json.loads(metadata["tokenization"]) == checkpoint.settings["tokenization"]
        assert json.loads(metadata["network"]) == checkpoint.settings["network"]


def documented(language, holding):
    """The block of the document that holds some words."""
    blocks = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    found, = [block for block in blocks if holding in block]
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_the_documented_reader_reads_safetensors(tmp_path, name):
    pytest.importorskip("safetensors", reason="make test-extras installs it")
    checkpoint = write_model(tmp_path / "model.h5", NETWORKS[name])
    assert main(["export", "--model", str(tmp_path / "model.h5"), "--format", "safetensors",
                 str(tmp_path / "model.safetensors")]) == 0
    reader = documented("python", "def read_safetensors")
    assert len([line for line in reader.splitlines() if line.strip()]) <= 10
    names = {}
    exec(reader, names)
    arrays, metadata = names["read_safetensors"](tmp_path / "model.safetensors")
    assert set(arrays) == set(checkpoint.parameters)
    for key, value in checkpoint.parameters.items():
        assert arrays[key].dtype == np.float32 and np.array_equal(arrays[key], value)
    assert json.loads(metadata["vocabulary"]) == list(checkpoint.vocabulary.words)
    assert json.loads(metadata["tokenization"]) == {"lowercase": True, "split": "words"}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_documented_names_and_shapes_are_those_of_the_file(name):
    config = NETWORKS[name]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]*)\|$",
                      DOCUMENT.read_text().partition("### Names and shapes")[2], re.MULTILINE)
    vocabulary, found = 11, {}
    for pattern, shape, when in rows:
        numbers = range(1, 1 + config.num_layers) if "N" in pattern else [0]
        gates = ("ingate", "forgetgate", "cell", "outgate") if "GATE" in pattern else [""]
        for number in numbers:
            for gate in gates:
                if "cell" in when and gate == "cell" or "peepholes" in when and not \
                        config.peepholes:
                    continue
                size = {"vocabulary": vocabulary, "units": config.num_units, "1": 1,
                        "inputs": vocabulary if number == 1 else config.num_units}
                key = pattern.replace("N", str(number), 1).replace("GATE", gate)
                found[key] = tuple(size[part.strip()] for part in shape.split(","))
    assert found == config.parameter_shapes(vocabulary)


def test_the_documented_use_of_onnxruntime_runs(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="make test-extras installs it")
    write_model(tmp_path / "model.h5", NETWORKS["learned first state"])
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--model", "model.h5", "--format", "onnx", "model.onnx"]) == 0
    names = {}
    exec(documented("python", "onnxruntime"), names)
    score, = LanguageModel.load("model.h5").score(["and God said"])
    assert np.abs(names["scores"][0] - score.log_probabilities).max() < 1e-5
    assert np.abs(names["by_step"] - score.log_probabilities).max() < 1e-5


def test_what_does_not_fit_is_told(tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnx", reason="make test-extras installs it")
    from model import export

    write_model(tmp_path / "model.h5")
    monkeypatch.setattr(export, "_PROTOBUF_BYTES", 1000)
    out = tmp_path / "m.onnx"
    assert main(["export", "--model", str(tmp_path / "model.h5"), "--format", "onnx",
                 str(out)]) == 1
    assert "take --format safetensors" in capsys.readouterr().err and not out.exists()
    checkpoint = random_model(NETWORKS["no peepholes"])
    checkpoint.parameters["softmax.b"][0] = np.inf
    with pytest.raises(export.UserError, match="softmax.b is not finite"):
        export.export(checkpoint, "onnx", out)


def test_the_current_model_is_exported_where_none_is_named(tmp_path, monkeypatch, capsys):
    pytest.importorskip("safetensors", reason="make test-extras installs it")
    from model.current import link_to

    path = tmp_path / "models" / "f00d" / "model.h5"
    write_model(path)
    link_to(path, tmp_path)
    monkeypatch.setenv("PIPELINE_WORK", str(tmp_path))
    out = tmp_path / "out.safetensors"
    assert main(["export", "--format", "safetensors", str(out)]) == 0
    assert capsys.readouterr().out.split() == [f"{out.stat().st_size:,}", str(out)]
