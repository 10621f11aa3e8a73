import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import comparison
from benchmarks.__main__ import main
from benchmarks.comparison import compare
from benchmarks.extent import QUICK, Shape
from benchmarks.machine import family_memory, machine, peak_memory
from benchmarks.preparation import write_corpus
from benchmarks.sgemm import FORWARD, OpenBLAS, combined_rate, products
from benchmarks.tables import comparison_table, machine_table
from benchmarks.workers import Worker
from model.system.errors import UserError

SHAPE = Shape(units=6, sentences=4, steps=3, vocabulary=10)


@pytest.fixture
def work(tmp_path, monkeypatch):
    cache = Path(os.environ["PIPELINE_WORK"]).resolve() / "theano"
    # The speed does not matter here, and Theano's Ops in Python need no compilation.
    monkeypatch.setenv("THEANO_FLAGS",
                       f"base_compiledir={cache},linker=py,optimizer=fast_compile")
    monkeypatch.setenv("PIPELINE_WORK", str(tmp_path))
    return tmp_path


def test_products_add_up_to_what_a_token_needs():
    total = sum(2 * p.rows * p.inner * p.columns * (SHAPE.steps if p.rows == SHAPE.sentences else 1)
                for p in products(SHAPE))
    assert total == SHAPE.tokens * (24 * 6**2 + 6 * 6 * 10)
    assert sum(p.operations for p in products(SHAPE)) * SHAPE.tokens == total
    assert [p.name.split()[1] for p in products(SHAPE)[:FORWARD]] == ["forward", "forward"]


def test_combined_rate_is_that_of_the_products_in_a_row():
    rates = {p.name: 100.0 for p in products(SHAPE)}
    assert combined_rate(SHAPE, rates) == pytest.approx(100)
    slow = {**rates, "recurrent forward": 50.0}
    recurrent, softmax = 8 * 6**2, 2 * 6 * 10
    assert combined_rate(SHAPE, slow, FORWARD) == pytest.approx(
        (recurrent + softmax) / (recurrent / 50 + softmax / 100))


@pytest.mark.parametrize("product", products(SHAPE), ids=lambda product: product.name)
def test_sgemm_computes_the_product(product, monkeypatch):
    given = []
    blas = OpenBLAS()
    sgemm = blas._sgemm
    blas._sgemm = lambda *arguments: (sgemm(*arguments), given.append(arguments))
    call = blas._call(product)
    call()
    arrays = {cell.cell_contents.ctypes.data: cell.cell_contents for cell in call.__closure__
              if isinstance(cell.cell_contents, np.ndarray)}
    left, right, result = (arrays[given[0][place]] for place in (7, 9, 12))
    left = left.T if product.transposed == "left" else left
    right = right.T if product.transposed == "right" else right
    np.testing.assert_allclose(result, left @ right, rtol=1e-5, atol=1e-5)


def test_contenders_train_the_same_network(work):
    result = compare(QUICK, lambda text: None)
    (shape,) = result["shapes"]
    losses = {name: figures["loss"] for name, figures in shape["results"].items()}
    for name in ("lookup-scan", "dense-scan"):
        assert losses[name] == pytest.approx(losses["fused"], rel=1e-5)
    for loss in losses.values():  # PyTorch draws other weights
        assert loss == pytest.approx(np.log(QUICK.vocabulary), rel=0.2)
    for figures in shape["results"].values():
        assert len(figures["seconds"]) == QUICK.turns
        assert figures["tokens_per_second"] > 0 and figures["peak_memory_mb"] > 20
    assert "Speed of fused" in comparison_table(result)


def test_without_pytorch_its_columns_are_left_out(monkeypatch):
    monkeypatch.setattr(comparison.importlib.util, "find_spec", lambda name: None)
    assert comparison.contenders() == ("fused", "lookup-scan", "dense-scan")


def test_growth_is_kept_beside_other_sections_and_plotted(work, monkeypatch, capsys):
    (work / "small.cfg").write_text("[network]\nnum_units = 4\ndropout = 0\n"
                                    "[training]\noptimiser = momentum\n")
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(work / "small.cfg"))
    monkeypatch.setattr("benchmarks.__main__.QUICK", replace(
        QUICK, turns=1, growing_units=(8,), growing_sentences=(2,), growing_steps=(2,),
        corpora=(300,)))
    folder = work / "bench" / "quick"
    folder.mkdir(parents=True)
    (folder / "bench.json").write_text('{"comparison": {}}')
    assert main(["--quick", "--only", "growth"]) == 0
    kept = json.loads((folder / "bench.json").read_text())
    assert kept.keys() == {"comparison", "growth"}
    assert kept["growth"]["machine"]["cores"] >= 1
    assert kept["growth"]["result"]["corpus"][0]["training_updates"] >= 2
    plots = {path.stem for path in folder.glob("*.svg")}
    assert plots == {f"growth_{name}" for name in
                     ("units", "sentences", "steps", "corpus_seconds", "corpus_memory")}
    assert not (folder / "scratch").exists()
    assert "corpus, sentences" in capsys.readouterr().out


def test_breakdown_names_all_parts_of_a_step(work, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.__main__.QUICK", replace(QUICK, turns=1))
    assert main(["--quick", "--only", "breakdown"]) == 0
    kept = json.loads((work / "bench" / "quick" / "bench.json").read_text())
    parts = kept["breakdown"]["result"]["parts"]
    products_of_a_step = {f"{layer}_{direction}" for layer in ("lstm", "softmax")
                          for direction in ("forward", "backward", "weights")}
    assert parts.keys() == {*products_of_a_step, "rest of accumulate", "apply"}
    assert {name for name, part in parts.items() if part.get("gflops")} == products_of_a_step
    assert all(part["milliseconds"] > 0 for part in parts.values())
    assert "rest of accumulate" in capsys.readouterr().out


def test_a_given_corpus_is_prepared(work, capsys):
    write_corpus(work / "mine.txt", 200)
    assert main(["--quick", "--only", "preparation"]) == 0
    assert "1,000 synthetic sentences" in capsys.readouterr().out
    given = ["--corpus", str(work / "mine.txt")]
    assert main(["--quick", "--only", "preparation", *given]) == 0
    assert "mine.txt" in capsys.readouterr().out
    missing = ["--corpus", str(work / "missing.txt")]
    assert main(["--quick", *missing]) == 1
    assert "missing.txt: there is no such file" in capsys.readouterr().err


def test_folders_of_files_are_prepared_and_looked_at_again(work, capsys):
    assert main(["--quick", "--only", "files"]) == 0
    kept = json.loads((work / "bench" / "quick" / "bench.json").read_text())
    rows = kept["files"]["result"]["rows"]
    assert [row["files"] for row in rows] == [40, 80]
    assert all(row["seconds"] > 0 and row["unchanged_seconds"] > 0 for row in rows)
    assert "unchanged, s" in capsys.readouterr().out


def test_shorter_corpus_is_the_beginning_of_the_longer(tmp_path):
    write_corpus(tmp_path / "short.txt", 300)
    write_corpus(tmp_path / "long.txt", 10_100)
    short, long = ((tmp_path / f"{name}.txt").read_text().splitlines() for name in
                   ("short", "long"))
    assert (len(short), len(long)) == (300, 10_100)
    assert long[:300] == short
    assert long[10_000] != long[0]
    words = [word for line in long for word in line.lower().split()[:-1]]
    shares = sorted((words.count(word) for word in set(words[:50])), reverse=True)
    assert shares[0] > 20 * shares[-1]


def test_settings_of_blas_are_left_out_and_named(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    assert "OPENBLAS_CORETYPE=Prescott" in machine_table(machine())
    with Worker("sgemm", SHAPE) as worker:
        assert "Prescott" not in worker.ready["blas"]
        assert worker.turn(0.001).keys() == {product.name for product in products(SHAPE)}


def test_failed_worker_is_reported(work):
    with pytest.raises(UserError, match="training-pass ended with exit code"):
        Worker("training-pass", vocabulary=str(work / "none.tsv"), shards=[], passes=1)


def test_machine_and_memory():
    here = machine()
    assert here["memory_gib"] > 0 and here["packages"]["Theano"] == "1.0.5"
    assert peak_memory() > 20
    assert family_memory(os.getpid()) > 20
    assert family_memory(2**22 + 1) == 0  # no such process


def test_writing_a_checkpoint_is_measured(work, capsys):
    assert main(["--quick", "--only", "checkpoints"]) == 0
    result = json.loads((work / "bench" / "quick" / "bench.json").read_text())["checkpoints"]
    figures = result["result"]
    assert figures["checkpoint_mb"] > figures["model_mb"] > 0
    assert "8 units, 50 words, Adam" in capsys.readouterr().out
