"""score, sample and info, as people call them."""

import dataclasses
import gzip
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model import scoring
from model.__main__ import _write_json, main
from model.checkpoint import Checkpoint, write_checkpoint
from model.current import link_to
from model.data.shards import ShardReader, write_shard
from model.data.vocabulary import Vocabulary
from model.evaluation import evaluate
from model.inference import load_network, read_model
from model.kneser_ney import KneserNey, write_kneser_ney
from model.network import compile_log_probabilities
from pipeline.corpus.files import find_corpus
from pipeline.corpus.publishing import split_corpus
from pipeline.tokens import write_tokens
from tests.jobs import REPOSITORY
from tests.lstm_reference import forward_and_gradients

LINES = [
    "The lamp burns .",
    "the lamp burns low , and the oil is spent .",
    "Who buys oil ?",
    "the lamp",
    "a zebra burns .",
    "the oil and the lamp and the low lamp , and oil .",
    "who ?",
]


def said(error):
    """What a command says, without Theano's word that another process compiles just then."""
    return "".join(line for line in error.splitlines(keepends=True)
                   if not line.startswith("INFO (theano.gof.compilelock)"))


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_shards):
    """A folder with a shard of LINES and a model with random weights that knows some words."""
    from model import engine  # noqa: F401  isort: skip
    import lasagne

    from model.network import NetworkConfig, build_network

    folder = tmp_path_factory.mktemp("made")
    (shard,), vocabulary = make_shards(folder / "corpus", [LINES], size=14)
    lasagne.random.set_rng(np.random.RandomState(3))
    network = build_network(NetworkConfig(7), len(vocabulary))
    random = np.random.default_rng(4)
    parameters = {
        parameter.name: random.normal(0, 0.7, parameter.get_value().shape).astype("float32")
        for parameter in lasagne.layers.get_all_params(network.output)}
    parameters["lstm1.cell_init"][:] = parameters["lstm1.hid_init"][:] = 0
    settings = {"network": vars(NetworkConfig(7)), "training": {}, "source": "0123",
                "tokenization": {"lowercase": True, "split": "words"}}
    model = folder / "work" / "models" / "f00d" / "model.h5"
    write_checkpoint(model, Checkpoint(
        parameters=parameters, optimiser=[], vocabulary=vocabulary,
        settings=settings, position={"updates": 0},
        history=[{"update": 3, "validation_perplexity": 9.5}],
        ancestry=[{"model": "cafe", "updates": 2}]))
    text = folder / "text.txt"
    text.write_text("".join(f"{line}\n" for line in LINES))
    return {"model": str(model), "shard": shard, "text": str(text), "vocabulary": vocabulary,
            "parameters": parameters, "work": folder / "work"}


def reference(made, words):
    """Natural log-probabilities of a sentence's words, in double precision."""
    vocabulary = made["vocabulary"]
    targets = np.array([[*vocabulary.encode(words), vocabulary.end]])
    inputs = np.array([[vocabulary.start, *targets[0, :-1]]])
    named = {name.removeprefix("lstm1.").replace("softmax.", "softmax_"): value
             for name, value in made["parameters"].items()}
    # The summed loss of a sentence's beginnings gives each word's by differences.
    sums = [0.0] + [forward_and_gradients(named, inputs[:, :n], targets[:, :n])[0]
                    for n in range(1, targets.shape[1] + 1)]
    return -np.diff(sums)


LOADED = """
import runpy, sys
arguments, names = sys.argv[2:], sys.argv[1].split(",")
sys.argv = arguments
try:
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
except SystemExit:
    pass
print("loaded:", *[name for name in names if name in sys.modules])
"""
TRAINING = ("model.training", "model.trainer", "model.updater", "model.schedule",
            "model.warm_start", "model.training_log")


@pytest.mark.parametrize("command, loaded", [
    (["model", "--help"], ""),
    (["pipeline", "--help"], ""),
    (["model", "info", "MODEL"], ""),
    (["model", "info", "SHARD"], ""),
    (["model", "score", "--model", "MODEL", "TEXT"], "theano"),
    (["model", "sample", "--model", "MODEL", "--count", "1"], "theano"),
    (["model", "score", "--model", "MODEL", "--device", "numpy", "TEXT"], ""),
    (["model", "sample", "--model", "MODEL", "--device", "numpy", "--count", "1"], ""),
])
def test_using_a_model_loads_no_training_and_looking_no_theano(made, command, loaded):
    given = {"MODEL": made["model"], "SHARD": made["shard"], "TEXT": made["text"]}
    done = subprocess.run(
        [sys.executable, "-c", LOADED, ",".join(("theano", "polars", *TRAINING)),
         *(str(given.get(word, word)) for word in command)], cwd=REPOSITORY,
        capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].split()[1:] == loaded.split(), done.stderr


def call(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


def score(capsys, made, text, *flags):
    """The lines of `score --format json`, and the total."""
    code, output, error = call(capsys, "score", text, "--model", made["model"], "--format", "json",
                               *flags)
    assert (code, error) == (0, "")
    *lines, total = map(json.loads, output.splitlines())
    assert total["line"] == "total"
    return lines, total


def test_the_total_is_that_of_the_evaluation(capsys, made):
    _, total = score(capsys, made, made["text"])
    log_probabilities = compile_log_probabilities(load_network(read_model(made["model"])))
    totals = evaluate(log_probabilities, ShardReader([made["shard"]]), made["vocabulary"]).totals
    figures = totals.figures()
    for key in ("sentences", "tokens", "oov_count"):
        assert total[key] == figures[key]
    assert total["oov_count"] > 0
    assert total["log_probability"] == pytest.approx(totals.log_probability, rel=1e-6)
    for key in ("perplexity", "perplexity_without_unk"):
        assert total[key] == pytest.approx(figures[key], rel=1e-6)


def test_every_word_has_the_probability_that_the_equations_give(capsys, made):
    lines, total = score(capsys, made, made["text"], "--words")
    for text, line in zip(LINES, lines):
        words = text.lower().split()
        assert [word["word"] for word in line["words"]] == [*words, "</s>"]
        assert [word["oov_count"] for word in line["words"]] == [
            int(word not in made["vocabulary"].words) for word in [*words, "</s>"]]
        np.testing.assert_allclose([word["log_probability"] for word in line["words"]],
                                   reference(made, words), rtol=1e-5, atol=1e-6)
        assert line["log_probability"] == pytest.approx(
            sum(word["log_probability"] for word in line["words"]))
        assert line["perplexity"] == pytest.approx(
            math.exp(-line["log_probability"] / line["tokens"]))
    assert "words" not in total


def test_scores_do_not_depend_on_what_else_is_scored(capsys, made, tmp_path, monkeypatch):
    together, _ = score(capsys, made, made["text"])
    monkeypatch.setattr(scoring, "_LINES_PER_BLOCK", 2)
    in_blocks, _ = score(capsys, made, made["text"])
    assert [line["line"] for line in in_blocks] == list(range(1, len(LINES) + 1))
    for text, line, block in zip(LINES, together, in_blocks):
        (tmp_path / "one").write_text(text)
        (alone,), _ = score(capsys, made, tmp_path / "one")
        for other in (alone, block):
            assert other["log_probability"] == pytest.approx(line["log_probability"], rel=1e-6)


def test_a_model_whose_training_had_no_unknown_word_says_so(capsys, made, tmp_path):
    checkpoint = read_model(made["model"])
    words, counts = checkpoint.vocabulary.words, list(checkpoint.vocabulary.counts)
    counts[checkpoint.vocabulary.unknown] = 0
    write_checkpoint(tmp_path / "model.h5", dataclasses.replace(
        checkpoint, vocabulary=Vocabulary(words, tuple(counts))))
    (tmp_path / "known.txt").write_text("the lamp\n")
    for text, said in ((made["text"], True), (tmp_path / "known.txt", False)):
        code, _, error = call(capsys, "score", text, "--model", tmp_path / "model.h5")
        assert (code, "only perplexity_without_unk means something" in error) == (0, said)


def test_base_10_and_the_table(capsys, made):
    natural, total = score(capsys, made, made["text"])
    code, output, _ = call(capsys, "score", made["text"], "--model", made["model"], "--base", "10")
    header, *rows = [line.split("\t") for line in output.splitlines()]
    assert header == ["line", "sentences", "tokens", "oov_count", "log_probability", "perplexity",
                      "perplexity_without_unk"]
    assert [row[0] for row in rows] == [str(n) for n in range(1, len(LINES) + 1)] + ["total"]
    for line, row in zip([*natural, total], rows):
        assert float(row[4]) == pytest.approx(line["log_probability"] / math.log(10), abs=1e-4)
        assert float(row[5]) == pytest.approx(line["perplexity"], abs=1e-3)
    code, output, _ = call(capsys, "score", made["text"], "--model", made["model"], "--words")
    widths = {line.count("\t") for line in output.splitlines()}
    assert (code, widths) == (0, {7})


def test_lines_are_read_as_the_corpus_reads_them(capsys, made, tmp_path):
    text = tmp_path / "text"
    text.write_bytes("\ufeffThe lamp\r\n\r\n  \nthe\u2028oil\u0085lamp".encode())
    lines, total = score(capsys, made, text, "--words")
    assert [[word["word"] for word in line["words"]] for line in lines] == [
        ["the", "lamp", "</s>"], [], [], ["the", "oil", "lamp", "</s>"]]
    assert lines[1]["perplexity"] is None and lines[1]["sentences"] == 0
    assert (total["sentences"], total["tokens"]) == (2, 7)
    text.write_bytes(b"")
    assert score(capsys, made, text)[1]["perplexity"] is None


def test_special_words_and_invisible_characters_are_read_as_the_corpus_reads_them(
        capsys, made, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the <unk> said unto the <unk>\n<s> the o\u00adil </s>\n<s> </s>\n\u200b\n"
                    "<UNK>\nthe <unk>.\n")
    for name in ("train", "valid"):
        (tmp_path / name).write_text(f"{name}\n")
    corpus = find_corpus(str(tmp_path / "train"), str(tmp_path / "valid"), str(text))
    manifest = split_corpus(corpus, parts_folder=tmp_path, rejected_lines_file=tmp_path / "none")
    part, = manifest["sides"]["test"]
    write_tokens(tmp_path / f"{part['digest']}.txt", tmp_path / "tokens.h5", lowercase=True)
    write_shard(tmp_path / "tokens.h5", made["vocabulary"], tmp_path / "shard.h5")
    log_probabilities = compile_log_probabilities(load_network(read_model(made["model"])))
    totals = evaluate(log_probabilities, ShardReader([tmp_path / "shard.h5"]),
                      made["vocabulary"]).totals
    lines, total = score(capsys, made, text, "--words")
    assert [[word["word"] for word in line["words"]] for line in lines] == [
        ["the", "<unk>", "said", "unto", "the", "<unk>", "</s>"], ["the", "oil", "</s>"], [], [],
        ["<unk>", "</s>"], ["the", "<", "unk", ">", ".", "</s>"]]
    assert [word["oov_count"] for word in lines[0]["words"]] == [0, 1, 1, 1, 0, 1, 0]
    for key in ("sentences", "tokens", "oov_count"):
        assert total[key] == totals.figures()[key]
    assert (total["sentences"], total["tokens"]) == (4, 7 + 3 + 2 + 6)
    assert total["log_probability"] == pytest.approx(totals.log_probability, rel=1e-6)


@pytest.fixture
def spaced(made, tmp_path):
    """As `made`, the model's text having been tokenized already, in upper and lower case."""
    checkpoint = read_model(made["model"])
    checkpoint.settings["tokenization"] = {"lowercase": False, "split": "spaces"}
    write_checkpoint(tmp_path / "spaced.h5", checkpoint)
    return {**made, "model": str(tmp_path / "spaced.h5")}


def test_a_model_carries_how_its_text_was_split(capsys, spaced, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(" \n = the <unk> oil . = \n<s> The lamp. </s>\n")
    lines, total = score(capsys, spaced, text, "--words")
    assert [[word["word"] for word in line["words"]] for line in lines] == [
        ["</s>"], ["=", "the", "<unk>", "oil", ".", "=", "</s>"], ["The", "lamp.", "</s>"]]
    assert (total["sentences"], total["tokens"], total["oov_count"]) == (3, 1 + 7 + 3, 5)
    values = [word["log_probability"] for line in lines for word in line["words"]]
    sentences = ([], ["<unk>", "the", "<unk>", "oil", ".", "<unk>"], ["<unk>", "<unk>"])
    np.testing.assert_allclose(
        values, np.concatenate([reference(spaced, words) for words in sentences]), rtol=1e-4)

    text.write_text("a\na </s> b\n")
    code, _, error = call(capsys, "score", text, "--model", spaced["model"])
    assert code == 1
    assert re.fullmatch("error: .*text.txt, line 2: </s> within the line: .*\n", said(error))


def test_a_prefix_is_split_as_the_model_s_text_was(capsys, spaced):
    arguments = ("sample", "--count", 1, "--seed", 1, "--model", spaced["model"], "--prefix")
    code, output, error = call(capsys, *arguments, "<s> the  lamp. burns")
    assert code == 0 and output.startswith("the lamp. burns")
    assert said(error) == "outside the vocabulary, so <unk> to the model: lamp.\n"
    code, output, error = call(capsys, *arguments, "the </s> lamp")
    assert (code, output) == (1, "")
    assert said(error) == ("error: the prefix cannot be used: </s> within the line: put each "
                           "sentence on a line of its own\n")


@pytest.mark.parametrize("content, message", [
    (b"fine\nbad \xff\n", r"line 2: not valid UTF-8 \(invalid start byte, at byte 4"),
    (b"t\0h\0e\0\n", "line 1: it holds a NUL byte"),
    (b"x" * 40000, "line 1: it is longer than 32,768 bytes"),
    (None, "cannot read .*text: No such file"),
])
def test_text_that_cannot_be_scored_is_one_clear_error(capsys, made, tmp_path, content, message):
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    code, _, error = call(capsys, "score", tmp_path / "text", "--model", made["model"])
    assert code == 1
    assert re.fullmatch(f"error: .*{message}.*\n", error)


def test_compressed_text_is_read_as_the_corpus_is(capsys, made, tmp_path):
    (tmp_path / "text.gz").write_bytes(gzip.compress(Path(made["text"]).read_bytes()))
    assert score(capsys, made, tmp_path / "text.gz") == score(capsys, made, made["text"])
    (tmp_path / "text.gz").write_bytes((tmp_path / "text.gz").read_bytes()[:-9])
    code, _, error = call(capsys, "score", tmp_path / "text.gz", "--model", made["model"])
    assert code == 1
    assert re.fullmatch("error: .*text.gz is truncated: its compressed data end.*\n", error)


def test_a_file_may_have_any_name(made, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9 \xff")
    command = [sys.executable, "-m", "model", "score", path, "--model", made["model"]]
    for exists in (False, True):
        if exists:
            path.write_text("the lamp\n")
        found = subprocess.run(command, capture_output=True, text=True)
        assert found.returncode == 1 - exists and "Traceback" not in found.stderr
        assert exists or "caf\\udce9 \\udcff: No such file" in found.stderr


def test_a_byte_order_mark_is_no_part_of_the_longest_line(capsys, made, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "_MAX_LINE_BYTES", 8)
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfthe lamp\r\nthe oil\n")
    lines, _ = score(capsys, made, tmp_path / "text", "--words")
    assert [[word["word"] for word in line["words"]] for line in lines] == [
        ["the", "lamp", "</s>"], ["the", "oil", "</s>"]]


def test_ids_are_warned_of(capsys, made, tmp_path, caplog):
    for text, warned in (("1\tthe lamp\n", True), ("1 lamp\nthe\tlamp\n", False)):
        (tmp_path / "text").write_text(text)
        caplog.clear()
        score(capsys, made, tmp_path / "text")
        assert ("cut -f2-" in caplog.text) == warned


@pytest.mark.parametrize("flag, value, wanted", [
    ("--base", "1", "a number greater than 1"), ("--base", "10x", "a number greater than 1"),
    ("--temperature", "-1", "a number of at least 0"),
    ("--temperature", "nan", "a number of at least 0"),
    ("--count", "-1", "a whole number of at least 0"),
    ("--count", "1.5", "a whole number of at least 0"),
])
def test_a_wrong_number_is_refused(capsys, flag, value, wanted):
    with pytest.raises(SystemExit) as ended:
        main(["score" if flag == "--base" else "sample", f"{flag}={value}"])
    assert ended.value.code == 2
    assert f"argument {flag}: {value} is not {wanted}" in capsys.readouterr().err


def test_json_holds_no_infinity(capsys):
    _write_json("total", None, {"perplexity": math.inf, "tokens": 3})
    assert json.loads(capsys.readouterr().out) == {"line": "total", "perplexity": None, "tokens": 3}


def test_a_prefix_that_is_no_text_is_refused(capsys, made):
    code, _, error = call(capsys, "sample", "--prefix", "\udcff", "--model", made["model"])
    assert (code, error) == (1, "error: the prefix is not valid UTF-8\n")


@pytest.mark.parametrize("redirection, message", [
    ("> /dev/full", "error: [Errno 28]"), (">&-", "error: standard output is closed"),
])
def test_output_that_is_not_taken_is_one_clear_error(made, redirection, message):
    shown = subprocess.run(
        ["bash", "-c", f'"$0" -m model info "$1" {redirection}', sys.executable, made["shard"]],
        capture_output=True, text=True)
    assert shown.returncode == 1 and shown.stderr.startswith(message)
    assert shown.stderr.count("\n") == 1


def test_input_that_is_closed_is_one_clear_error(made):
    shown = subprocess.run(["bash", "-c", '"$0" -m model score - <&-', sys.executable],
                           capture_output=True, text=True)
    assert (shown.returncode, said(shown.stderr)) == (
        1, "error: standard input is closed; name a file\n")


@pytest.mark.parametrize("command", ["score", "sample"])
def test_anything_but_a_checkpoint_is_refused(capsys, made, tmp_path, command):
    damaged = tmp_path / "damaged.h5"
    content = bytearray(Path(made["model"]).read_bytes())
    content[-100] ^= 1
    damaged.write_bytes(content)
    for path, message in ((made["shard"], "is not a checkpoint"),
                          (made["text"], "it does not begin with the seal"),
                          (damaged, "its bytes do not match its seal"),
                          (tmp_path / "none", "there is no checkpoint"),
                          (tmp_path, "Is a directory")):
        arguments = [made["text"]] if command == "score" else []
        code, output, error = call(capsys, command, *arguments, "--model", path)
        assert (code, error.count("\n"), "next run" in error) == (1, 1, False)
        assert error.startswith("error: ") and message in error


def test_the_default_is_the_current_model(capsys, made, monkeypatch, tmp_path):
    monkeypatch.setenv("PIPELINE_WORK", str(made["work"]))
    link_to(Path(made["model"]), made["work"])
    # Another night's, newer, and not current.
    (made["work"] / "models" / "bad").mkdir()
    (made["work"] / "models" / "bad" / "model.h5").write_bytes(b"")
    for command in (["score", made["text"]], ["sample", "--count", "0"], ["info"]):
        code, _, error = call(capsys, *command)
        assert (code, error) == (0, f"model: {made['model']}\n")
    link_to(made["work"] / "models" / "bad" / "model.h5", made["work"])
    link_to(Path(made["model"]), made["work"], "night")
    for command in (["score", made["text"]], ["sample", "--count", "0"], ["info"]):
        code, _, error = call(capsys, *command, "--profile", "night")
        assert (code, error) == (0, f"model: {made['model']}\n")
    (made["work"] / "models" / "bad" / "model.h5").unlink()
    code, _, error = call(capsys, "score", made["text"])
    assert code == 1 and "is gone" in error and "--model" in error
    monkeypatch.setenv("PIPELINE_WORK", str(tmp_path))
    code, _, error = call(capsys, "score", made["text"])
    assert code == 1 and "no complete run" in error and "--model" in error


@pytest.fixture
def complete(made, tmp_path, monkeypatch):
    """A working folder with a current model, its figures, and trigrams of the same text."""
    monkeypatch.setenv("PIPELINE_WORK", str(tmp_path))
    write_kneser_ney([made["shard"]], made["vocabulary"], 3, tmp_path / "baseline" / "trigrams.h5")
    folder = tmp_path / "models" / "f00d"
    folder.mkdir(parents=True)
    (folder / "model.h5").write_bytes(Path(made["model"]).read_bytes())
    (folder / "metrics.json").write_text(json.dumps(
        {"mixture": {"model": "baseline/trigrams.h5", "network_weight": 0.3}}))
    link_to(folder / "model.h5", tmp_path)
    return tmp_path


@pytest.mark.parametrize("lines_per_block", [4096, 2])
def test_a_mixture_adds_the_probabilities_of_both_models(
        capsys, made, complete, monkeypatch, lines_per_block):
    monkeypatch.setattr(scoring, "_LINES_PER_BLOCK", lines_per_block)
    code, output, _ = call(capsys, "score", made["text"], "--mix", "--words", "--format", "json")
    *lines, total = map(json.loads, output.splitlines())
    vocabulary = made["vocabulary"]
    ngrams = KneserNey(complete / "baseline" / "trigrams.h5", vocabulary)
    assert code == 0
    for text, line in zip(LINES, lines, strict=True):
        words = text.lower().split()
        targets = np.array([[*vocabulary.encode(words), vocabulary.end]])
        inputs = np.array([[vocabulary.start, *targets[0, :-1]]])
        (of_ngrams,), = ngrams.score([(inputs, targets)])
        expected = np.log(0.3 * np.exp(reference(made, words)) + 0.7 * np.exp(of_ngrams))
        np.testing.assert_allclose([word["log_probability"] for word in line["words"]],
                                   expected, rtol=1e-5, atol=1e-6)
        assert line["log_probability"] == pytest.approx(expected.sum(), rel=1e-5)
    assert total["log_probability"] == pytest.approx(
        sum(line["log_probability"] for line in lines))


def test_a_mixture_of_nothing_is_one_clear_error(capsys, made, complete):
    code, _, error = call(capsys, "score", made["text"], "--mix", "--model", made["model"])
    assert (code, error) == (
        1, "error: --mix takes the model of the last good run: leave --model out\n")
    path = complete / "baseline" / "trigrams.h5"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    code, _, error = call(capsys, "score", made["text"], "--mix")
    assert code == 1 and "trigrams.h5 is damaged" in error and "Traceback" not in error
    path.unlink()
    code, _, error = call(capsys, "score", made["text"], "--mix")
    assert code == 1 and f"is gone: {path}" in error and "'make run'" in error
    (complete / "models" / "f00d" / "metrics.json").write_text('{"mixture": null}')
    code, _, error = call(capsys, "score", made["text"], "--mix")
    assert code == 1 and "had no n-gram model" in error and "[baseline] order" in error
