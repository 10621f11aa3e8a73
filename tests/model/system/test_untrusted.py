"""Shards and checkpoints that were made to do harm: their seals are right, and little else is."""

import json
import os
import signal
import subprocess
import sys

from model import engine  # noqa: F401  isort: skip

import h5py
import lasagne
import numpy as np
import pytest

from model import description, inference, trial
from model.__main__ import main
from model.checkpoint import Checkpoint, write_checkpoint
from model.data.shards import load
from model.data.vocabulary import Vocabulary
from model.network import NetworkConfig, build_network
from model.system import untrusted
from model.system.errors import DamagedFile, UserError
from model.system.hdf5 import open_hdf5, write_hdf5
from tests import hdf5_fuzzer
from tests.jobs import REPOSITORY

WORDS = ("<unk>", "<s>", "</s>", *(f"word{n}" for n in range(17)))
TOKENIZATION = {"lowercase": True, "split": "words"}
NETWORK = {"num_units": 3, "num_layers": 1, "recurrence": "scan"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("untrusted") / "model.h5"
    lasagne.random.set_rng(np.random.RandomState(1))
    network = build_network(NetworkConfig(**NETWORK), len(WORDS))
    parameters = {parameter.name: parameter.get_value()
                  for parameter in lasagne.layers.get_all_params(network.output)}
    write_checkpoint(path, Checkpoint(
        parameters=parameters, optimiser=[np.zeros(3, "float32")],
        vocabulary=Vocabulary(WORDS, tuple(range(len(WORDS)))),
        settings={"network": NETWORK, "tokenization": TOKENIZATION, "training": {},
                  "source": "here"},
        position={"update": 1}, history=[{"update": 1, "validation_perplexity": 2.0}]))
    return path


@pytest.fixture(scope="module")
def shard(tmp_path_factory, make_shards):
    shards, _ = make_shards(tmp_path_factory.mktemp("shards"), [["a b c", "b", "c c", "a b"]])
    return shards[0]


def changed(path, target, change):
    """A copy of a sealed file after a change, with a seal of its own."""
    with open_hdf5(path) as source, write_hdf5(target) as file:
        for name in source:
            source.copy(name, file)
        for name, value in source.attrs.items():
            file.attrs[name] = value
        change(file)
    return target


# What HDF5 itself makes of a file


@pytest.mark.parametrize("kind", ["checkpoint", "shard"])
def test_no_change_of_the_structures_is_a_fault_of_ours(kind, request, tmp_path):
    source = request.getfixturevalue(kind)
    done = subprocess.run([sys.executable, "-m", "tests.hdf5_fuzzer", source, tmp_path, "250"],
                          cwd=REPOSITORY, stdout=subprocess.PIPE)
    ends = json.loads(done.stdout)
    assert ends["refused"] > 50 and "faulty" not in ends, ends
    # The library's own faults end only the process in which the file is tried.
    for path in list(tmp_path.iterdir())[:3]:
        with pytest.raises(UserError, match=r"h5 cannot be read: it ends a process .*SIG"):
            untrusted.try_out(path, seconds=1)


def test_a_process_that_crashes_is_an_error(checkpoint, tmp_path, monkeypatch):
    crash = tmp_path / "crash"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crash))
    for read in (description.describe, inference.read_model):
        with pytest.raises(UserError, match=r"model.h5 cannot be read: .*\(SIGSEGV\)"):
            read(checkpoint)


def test_a_process_that_does_not_end_is_ended(checkpoint, monkeypatch):
    monkeypatch.setattr(trial, "description", lambda path: exec("while True: pass"))
    child = os.fork()
    if not child:
        trial.main(checkpoint, 1, os.getppid())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (-signal.SIGKILL, -signal.SIGXCPU)


def test_a_file_that_is_as_it_should_be_is_read(checkpoint, shard):
    assert inference.read_model(checkpoint).vocabulary.words == WORDS
    assert description.describe(checkpoint)["kind"] == "checkpoint"
    assert description.describe(shard)["kind"] == "shard"


# What can be said in HDF5 and is no checkpoint


def replaced(name, **how):
    def change(file):
        del file[name]
        file.create_dataset(name, **how)
    return change


def set_json(name, **values):
    def change(file):
        content = json.loads(file[name][()].tobytes()) | values
        replaced(name, data=np.frombuffer(json.dumps(content).encode(), "uint8"))(file)
    return change


def text(name, content):
    return replaced(name, data=np.frombuffer(content, "uint8"))


def linked(name, link):
    def change(file):
        del file[name]
        file[name] = link
    return change


def outside(file):
    """The words are taken from another file."""
    del file["vocabulary/words"]
    file.create_dataset("vocabulary/words", 20, "uint8", external=[("/etc/passwd", 0, 20)])


def virtual(file):
    del file["vocabulary/words"]
    layout = h5py.VirtualLayout(20, "uint8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "words", 20)
    file.create_virtual_dataset("vocabulary/words", layout)


WEIGHTS = "parameters/softmax.W"
ODD = {
    "settings that are no JSON": text("settings", b"{"),
    "settings that are no text": text("settings", b"\xff"),
    "settings that are a list": text("settings", b"[]"),
    "settings that are a number": text("settings", b"1"),
    "settings without end": text("settings", b"[" * 100_000),
    "settings with a number without end": text("settings", b'{"network": ' + b"9" * 10_000 + b"}"),
    "no settings": lambda file: file.__delitem__("settings"),
    "settings of another type": replaced("settings", data=np.zeros(3)),
    "settings that are a table": replaced("settings", data=np.zeros((3, 3), "uint8")),
    "settings that are a folder": lambda file: (file.__delitem__("settings"),
                                                file.create_group("settings")),
    "no network": set_json("settings", network=None),
    "a network with more": set_json("settings", network={**NETWORK, "more": 1}),
    "a network without units": set_json("settings", network={}),
    **{f"{name} = {value!r}": set_json("settings", network={**NETWORK, name: value})
       for name, value in (("num_units", 10**9), ("num_units", 0), ("num_units", "3"),
                           ("num_units", 3.5), ("num_units", float("nan")), ("num_units", [3]),
                           ("num_units", 2), ("num_units", 4), ("num_layers", 10**9),
                           ("num_layers", 2), ("peepholes", False), ("recurrence", "other"))},
    "no tokenization": set_json("settings", tokenization=[]),
    "lowercase = maybe": set_json("settings", tokenization={**TOKENIZATION, "lowercase": "maybe"}),
    "no tokenization's rule": set_json("settings", tokenization={"lowercase": True}),
    "split = letters": set_json("settings", tokenization={**TOKENIZATION, "split": "letters"}),
    "split = []": set_json("settings", tokenization={**TOKENIZATION, "split": []}),
    "splits": set_json("settings", tokenization={**TOKENIZATION, "more": 1}),
    "no weights": lambda file: file.__delitem__(WEIGHTS),
    "other weights": lambda file: file["parameters"].create_dataset("more", data=np.zeros(3, "f4")),
    "fewer weights": replaced(WEIGHTS, data=np.zeros((3, 19), "float32")),
    "weights on their side": replaced(WEIGHTS, data=np.zeros((20, 3), "float32")),
    "double weights": replaced(WEIGHTS, data=np.zeros((3, 20), "float64")),
    "half weights": replaced(WEIGHTS, data=np.zeros((3, 20), "float16")),
    "whole weights": replaced(WEIGHTS, data=np.zeros((3, 20), "int32")),
    "complex weights": replaced(WEIGHTS, data=np.zeros((3, 20), "complex64")),
    "weights in text": replaced(WEIGHTS, data=np.full((3, 20), b"1")),
    "no number": replaced(WEIGHTS, data=np.full((3, 20), np.nan, "float32")),
    "no finite number": replaced(WEIGHTS, data=np.full((3, 20), -np.inf, "float32")),
    "weights that nobody wrote": replaced(WEIGHTS, shape=(3, 20), dtype="float32"),
    "weights of any size": replaced(WEIGHTS, shape=(1 << 40, 20), dtype="float32", chunks=(9, 20)),
    "weights that unpack": replaced(WEIGHTS, shape=(1 << 16, 1 << 16), dtype="float32",
                                    chunks=(64, 64), compression="gzip"),
    "weights without a shape": replaced(WEIGHTS, data=h5py.Empty("float32")),
    "words from another file": outside,
    "words by another file": virtual,
    "words by a link to another file": linked("vocabulary/words",
                                              h5py.ExternalLink("/etc/passwd", "/")),
    "words by a link that leads on": linked("vocabulary/words", h5py.SoftLink("/settings")),
    "words that are no text": text("vocabulary/words", b"\xff" * 9),
    "a word twice": text("vocabulary/words", "\n".join(WORDS[:-1] + WORDS[:1]).encode()),
    "words without <unk>": text("vocabulary/words", "\n".join(["x", *WORDS[1:]]).encode()),
    "more words": text("vocabulary/words", "\n".join([*WORDS, "more"]).encode()),
    "counts of half": replaced("vocabulary/counts", data=np.zeros(20)),
    "fewer counts": replaced("vocabulary/counts", data=np.zeros(19, "int64")),
    "no vocabulary": lambda file: file.__delitem__("vocabulary"),
    "a history that is none": text("history", b"3"),
    "a version in words": lambda file: file.attrs.__setitem__("format_version", "one"),
    "a version of many numbers": lambda file: file.attrs.__setitem__("format_version", [1, 2]),
    "no version": lambda file: file.attrs.__delitem__("format_version"),
    "a format of many words": lambda file: file.attrs.__setitem__("format", ["a", "b"]),
}
# What only the use of the model can tell, and what it can do without.
NOT_BY_INFO = ("a network", "num_", "peepholes", "recurrence", "lowercase", "split",
               "no weights",
               "other weights", "fewer weights", "weights on", "double", "half", "no number",
               "no finite", "more words", "no network", "no tokenization")
NOT_BY_SCORE = ("a history",)


@pytest.mark.parametrize("oddity", ODD)
def test_an_odd_checkpoint_is_one_line(oddity, checkpoint, tmp_path, capsys, monkeypatch):
    path = changed(checkpoint, tmp_path / "odd.h5", ODD[oddity])
    # A process each would take a while, and these do not crash.
    monkeypatch.setattr(description, "try_out", lambda path: None)
    monkeypatch.setattr(inference, "try_out", lambda path: None)
    (tmp_path / "text").write_text("word1 word2\n")
    for command, spared in ((["score", str(tmp_path / "text"), "--model", str(path)], NOT_BY_SCORE),
                            (["info", str(path)], NOT_BY_INFO)):
        if oddity.startswith(spared):
            continue
        assert main(command) == 1
        output = capsys.readouterr()
        assert output.err.startswith("error: ") and len(output.err.splitlines()) == 1, output.err
        assert "root:" not in output.err


ODD_SHARDS = {
    "a word of another vocabulary": lambda file: file["inputs/indices"].__setitem__(0, 65535),
    "a smaller vocabulary": lambda file: file.attrs.__setitem__("vocabulary_size", 4),
    "an end of another vocabulary": lambda file: file.attrs.__setitem__("end", 99),
    "no steps": lambda file: file.attrs.__setitem__("steps", np.zeros(3, "int64")),
    "steps back": lambda file: file.attrs.__setitem__("steps", file.attrs["steps"][::-1]),
    "steps of half": lambda file: file.attrs.__setitem__("steps", file.attrs["steps"] / 2),
    "offsets beyond the end": lambda file: file.attrs.__setitem__(
        "offsets", file.attrs["offsets"] * 2),
    "offsets below zero": lambda file: file.attrs.__setitem__(
        "offsets", file.attrs["offsets"] - 1),
    "offsets missing": lambda file: file.attrs.__delitem__("offsets"),
    "offsets of one number": lambda file: file.attrs.__setitem__("offsets", 3),
    "indices below zero": replaced("inputs/indices", data=np.full(13, -1)),
    "indices of half": replaced("inputs/indices", data=np.full(13, 0.5)),
    "no indices": lambda file: file.__delitem__("inputs/indices"),
    "indices from another file": linked("inputs/indices", h5py.ExternalLink("/etc/passwd", "/")),
    "indices of any size": replaced("inputs/indices", shape=1 << 40, dtype="uint16", chunks=99),
}


@pytest.mark.parametrize("oddity", ODD_SHARDS)
def test_an_odd_shard_is_damaged(oddity, shard, tmp_path):
    path = changed(shard, tmp_path / "odd.h5", ODD_SHARDS[oddity])
    with pytest.raises(DamagedFile, match="odd.h5 is damaged"):
        load(path)
    with pytest.raises(DamagedFile, match="odd.h5 is damaged"):
        hdf5_fuzzer.read(path, is_checkpoint=False)
    with pytest.raises(UserError, match="odd.h5 is (no shard|neither)"):
        description.description(path)
