import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import comparison, worker
from benchmarks.__main__ import main
from benchmarks.comparison import compare
from benchmarks.corpora import write_large_corpus
from benchmarks.extent import QUICK, Shape
from benchmarks.machine import busy_cores, family_memory, machine, peak_memory
from benchmarks.preparation import write_corpus
from benchmarks.processes import efficiency
from benchmarks.recipe import KNOBS
from benchmarks.sgemm import FORWARD, OpenBLAS, combined_rate, products
from benchmarks.tables import card_table, comparison_table, machine_table
from benchmarks.workers import REPOSITORY, Worker
from model.system.errors import UserError
from tests.jobs import Job

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
    # Without Theano's optimizations the losses are computed apart from their gradients.
    products_of_a_step = {"lstm_forward", "lstm_backward", "lstm_weights", "softmax_forward",
                          "softmax_gradients"}
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


def test_looks_at_many_parts(work, capsys):
    assert main(["--quick", "--only", "looks"]) == 0
    kept = json.loads((work / "bench" / "quick" / "bench.json").read_text())
    assert [row["parts"] for row in kept["looks"]["result"]["rows"]] == [3, 5]
    assert "processor, s" in capsys.readouterr().out


def test_large_corpora_are_prepared_and_looked_at_again(work, capsys):
    assert main(["--quick", "--only", "corpora", "--sentences", "1500", "2500"]) == 0
    kept = json.loads((work / "bench" / "quick" / "bench.json").read_text())
    rows = kept["corpora"]["result"]["rows"]
    assert [row["sentences"] for row in rows] == [1500, 2500]
    assert all(stage["seconds"] > 0 and stage["peak_memory_mb"] > 10
               for row in rows for stage in row["stages"].values())
    assert "baseline" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--quick", "--only", "files", "--sentences", "10"])


def test_a_large_corpus_has_ever_more_words_and_is_the_same_every_time(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.corpora._SENTENCES_PER_FILE", 20_000)
    write_large_corpus(tmp_path / "a", 50_000)
    write_large_corpus(tmp_path / "b", 50_000)
    files = sorted((tmp_path / "a").iterdir())
    assert [len(file.read_text().splitlines()) for file in files] == [20_000, 20_000, 10_000]
    assert all((tmp_path / "b" / file.name).read_bytes() == file.read_bytes() for file in files)
    seen = set()
    for file in files:
        new = set(file.read_text().split()) - seen
        assert len(new) > 2_000
        seen |= new


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
    with pytest.raises(UserError, match="training-pass ended with exit code"), Worker(
            "training-pass", vocabulary=str(work / "none.tsv"), shards=[], passes=1):
        pass


def test_machine_and_memory():
    here = machine()
    assert here["memory_gib"] > 0 and here["packages"]["Theano"] == "1.0.5"
    assert peak_memory() > 20
    assert family_memory(os.getpid()) > 20
    assert family_memory(2**22 + 1) == 0  # no such process


def test_the_work_of_others_is_seen():
    code = "print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        try:
            busy = busy_cores(0.5)
        finally:
            other.kill()
    assert 0.4 < busy < 1.2 * os.cpu_count()  # it is counted in hundredths of a second


def test_writing_a_checkpoint_is_measured(work, capsys):
    assert main(["--quick", "--only", "checkpoints"]) == 0
    result = json.loads((work / "bench" / "quick" / "bench.json").read_text())["checkpoints"]
    figures = result["result"]
    assert figures["checkpoint_mb"] > figures["model_mb"] > 0
    assert "8 units, 50 words, Adam" in capsys.readouterr().out


def test_updates_are_measured_beside_the_memory(work, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.__main__.QUICK", replace(QUICK, turns=1))
    assert main(["--quick", "--only", "apply"]) == 0
    kept = json.loads((work / "bench" / "quick" / "bench.json").read_text())["apply"]["result"]
    weights = 4 * 8 * (50 + 8) + 8 * 50
    assert kept["parameters"] == weights
    assert [update["bytes"] / weights for update in kept["updates"]] == [24, 32, 36]
    best = max(kept["stream"].values())
    for update in kept["updates"]:
        assert update["share"] == pytest.approx(update["bytes"] / update["seconds"] / best)
    assert "adam, norm bounded" in capsys.readouterr().out


def test_trainings_are_measured_beside_their_products(work, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.__main__.QUICK", replace(QUICK, turns=1))
    assert main(["--quick", "--only", "vocabularies"]) == 0
    kept = json.loads((work / "bench" / "quick" / "bench.json").read_text())
    result = kept["vocabularies"]["result"]
    assert [row["words"] for row in result["prepared"]] == list(QUICK.vocabularies)
    assert [row["words"] for row in result["runs"]] == list(QUICK.vocabularies)
    assert all(row["next"] > 0 for row in result["runs"])
    (trained,) = result["trained"]
    (turn,) = trained["turns"]
    assert trained["share"] == turn["products"] / turn["training"] > 0
    assert turn["tokens"] > 128  # sentences of a window, and their ends
    assert "share of sgemm" in capsys.readouterr().out


@pytest.mark.extras
@pytest.mark.usefixtures("torch_installed")
def test_the_section_of_the_card_is_measured_in_pieces(work, capsys):
    """On the processor, with the same code."""
    path = work / "bench" / "quick" / "bench.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"card": {"cuda, 4096 units, tf32": 1, "torch-cpu, 6 units, bf16": 2}}')
    assert main(["--quick", "--only", "card", "--units", "6"]) == 0
    assert "A micro-batch alone" in capsys.readouterr().out
    pieces = json.loads(path.read_text())["card"]
    assert pieces.pop("cuda, 4096 units, tf32") == 1
    assert pieces.keys() == {"torch-cpu, 6 units, single", "torch-cpu, 6 units, bf16"}
    for piece in pieces.values():
        assert piece["device"]["device"] == "torch-cpu" and piece["machine"]["cores"] >= 1
        result = piece["result"]
        shape = Shape(result["units"], QUICK.card.sentences, QUICK.card.steps,
                      QUICK.card.vocabulary)
        assert result["products"]["products"].keys() == {p.name for p in products(shape)}
        assert result["results"].keys() == {"training", "torch-one-hot", "torch-embedding"}
        for name, figures in result["results"].items():
            assert figures["loss"] == pytest.approx(np.log(QUICK.card.vocabulary), rel=0.2)
            assert len(figures["turns"]) == QUICK.card.turns
            median = np.median([turn["seconds"] for turn in figures["turns"]])
            assert figures["tokens_per_second"] == pytest.approx(shape.tokens / median)
            rate = figures["tokens_per_second"] * (24 * shape.units**2
                                                   + 6 * shape.units * shape.vocabulary)
            assert figures["share_of_products"] * result["products"]["gflops"] == pytest.approx(
                rate / 1e9)
            assert 0 < figures["queued_ms"] <= figures["done_ms"]
            assert (name == "training") == ("apply_ms" in figures)
            assert figures["peak_memory_mb"] is None and figures["kernels"] is None


@pytest.mark.extras
@pytest.mark.parametrize("task", ["torch-one-hot", "torch-embedding"])
def test_pytorchs_lstm_adds_up_losses_and_gradients(torch_installed, task):
    from benchmarks.torch_lstm import TorchLSTM

    network = TorchLSTM(task, SHAPE)
    weights = network._lstm.weight_hh_l0
    network.accumulate()
    loss, gradient = network.loss(), weights.grad.clone()
    assert loss == pytest.approx(SHAPE.tokens * np.log(SHAPE.vocabulary), rel=0.2)
    network.accumulate()
    assert network.loss() == pytest.approx(2 * loss)
    torch_installed.testing.assert_close(weights.grad, 2 * gradient)


@pytest.mark.extras
@pytest.mark.usefixtures("torch_installed")
@pytest.mark.parametrize("product", products(SHAPE), ids=lambda product: product.name)
def test_products_on_a_card_lie_in_memory_as_those_of_a_step(product):
    from benchmarks.on_card import Products

    alone = Products(SHAPE, "torch-cpu", "single")
    left, right, result = alone._matrices(product)
    assert (left @ right).shape == result.shape == (product.rows, product.columns)
    assert left.shape[1] == product.inner
    assert left.T.is_contiguous() == (product.transposed == "left")
    assert right.T.is_contiguous() == (product.transposed == "right")
    assert alone._rate(product, 0.001) > 0


@pytest.fixture
def no_card():
    try:
        import torch
    except ImportError:
        return
    if torch.cuda.is_available():
        pytest.skip("there is a card")


@pytest.mark.usefixtures("no_card")
def test_without_a_card_its_section_is_an_error_alone_and_left_out_of_all(
        work, monkeypatch, capsys):
    assert main(["--only", "card"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "..." not in line]
    assert line.startswith("error: device = cuda")
    monkeypatch.setattr("benchmarks.__main__.SECTIONS", ("card",))
    assert main(["--quick", "--device", "cuda:1"]) == 0
    assert "card: left out: device = cuda:1" in capsys.readouterr().out


def test_without_pytorch_the_card_is_refused(monkeypatch):
    said = []
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(worker, "_say", said.append)
    worker.describe_card({"device": "cuda"})
    assert "device = cuda needs PyTorch" in said[0]["refused"]


@pytest.mark.parametrize("arguments, said", [
    (["--device", "cpu"], "cpu: it must be cuda, cuda:N or torch-cpu"),
    (["--device", "cuda:x"], "cuda:x: it must be cuda, cuda:N or torch-cpu"),
    (["--units", "0"], "0: it must be a whole number"),
    (["--only", "growth", "--units", "4"], "--device and --units are of the section card")])
def test_options_that_the_card_does_not_have(arguments, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_the_table_of_the_card():
    lstm = {"tokens_per_second": 1e5, "share_of_products": 0.4, "queued_ms": 1.0, "done_ms": 26.0,
            "kernels": 99, "peak_memory_mb": 1500.0}
    training = {"tokens_per_second": 2e5, "share_of_products": 0.82, "queued_ms": 8.0,
                "done_ms": 13.0, "kernels": None, "peak_memory_mb": 2000.0,
                "peak_memory_of_apply_mb": 4000.0, "apply_ms": 7.125}
    told = card_table({
        "device": {"device": "cuda, a card", "versions": {"driver": "1.2", "PyTorch": "3.4"}},
        "pieces": [{"units": 4096, "sentences": 128, "steps": 20, "vocabulary": 2000,
                    "precision": "tf32", "window": 8, "products": {"gflops": 50_000.0},
                    "results": {"training": training, "torch-one-hot": lstm}}]})
    rows = [line.split() for line in told.splitlines() if line.split()[:2] == ["4096", "tf32"]]
    assert "cuda, a card; driver 1.2, PyTorch 3.4" in told
    assert [row[2:] for row in rows] == [
        ["2.00", "82%", "50,000"], ["200,000", "100,000"],
        ["8.00", "/", "13.00;", "-", "1.00", "/", "26.00;", "99"],
        ["2,000", "1,500", "4,000", "7.12"]]


@pytest.mark.parametrize("module", [
    "benchmarks.__main__", "benchmarks.worker",
    pytest.param("benchmarks.on_card", marks=pytest.mark.extras)])
def test_the_section_of_the_card_needs_few_packages(module, request):
    """A machine with a card may have no package index: see docs/performance.md."""
    if module == "benchmarks.on_card":
        request.getfixturevalue("torch_installed")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"], cwd=REPOSITORY,
        capture_output=True, text=True, check=True)
    imported = {name.split(".")[0] for name in done.stdout.split()}
    assert "theano" in imported
    assert not imported & {"luigi", "polars", "matplotlib", "jinja2", "tornado", "zstandard"}


@pytest.mark.extras
def test_kernels_are_counted_where_the_card_lets_us(torch_installed, monkeypatch):
    from benchmarks import on_card

    class Profile:
        def __init__(self, activities):
            assert activities == [on_card.ProfilerActivity.CUDA]

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def events(self):
            return [SimpleNamespace(device_type=on_card.DeviceType.CUDA)] * 3 + [
                SimpleNamespace(device_type=on_card.DeviceType.CPU)]

    def refuse(activities):
        raise RuntimeError("not for users")

    timing = on_card.Timing("torch-embedding", SHAPE, "torch-cpu", "single", window=2)
    assert timing.end() == {"kernels": None}
    timing._device = torch_installed.device("cuda")
    monkeypatch.setattr(on_card, "profile", Profile)
    assert timing.end() == {"kernels": 3}
    monkeypatch.setattr(on_card, "profile", refuse)
    assert timing.end() == {"kernels": None}
    monkeypatch.setattr(on_card.torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(on_card.torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    assert timing.start()["peak_memory_mb"] == 3


@pytest.mark.extras
def test_two_processes_are_timed_beside_one(work, capsys):
    pytest.importorskip("mpi4py", reason="MPI is not there; make test-extras installs it")
    assert main(["--quick", "--only", "processes"]) == 0
    size, = json.loads((work / "bench" / "quick" / "bench.json").read_text())[
        "processes"]["result"]["sizes"]
    assert size["speedup"] == (size["2"]["tokens_per_second"] / size["1"]["tokens_per_second"])
    for count in ("1", "2"):
        parts = sum(size[count][name] for name in ("accumulate", "sum", "apply"))
        assert 0 < parts <= size[count]["seconds"]
    # Gradients of all weights in single precision, and count and loss.
    units, words = QUICK.processes.units[0], QUICK.processes.vocabulary
    weights = 4 * (words + units + 1) * units + 3 * units + (units + 1) * words
    assert size["megabytes"] * 1e6 == 4 * weights + 16
    assert "Allreduce, GB/s" in capsys.readouterr().out


def test_a_slow_network_or_many_hosts_make_an_update_less_efficient():
    size = {"1": {"accumulate": 10.0, "apply": 1.0}, "2": {"sum_rate": 1e9, "meeting": 0.25},
            "megabytes": 500.0}
    # 10 / 2 + 1 + 2 * (1 / 2) * 0.5 GB at 0.5 GB/s, and one meeting.
    assert efficiency(size, 2, 1.0, 1e9) == pytest.approx(11 / (2 * 7.25))
    assert efficiency(size, 2, 0.5, 1e9) == pytest.approx(11 / (2 * 12.25))
    assert efficiency(size, 2, 1.0, 1e8) < efficiency(size, 2, 1.0, 1e9)
    assert efficiency(size, 4, 1.0, 1e9) < efficiency(size, 2, 1.0, 1e9)


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A job that has trained, and its perplexities at the end."""
    job = Job(tmp_path_factory.mktemp("study") / "job", train=200)
    job.set("network", dropout=0.1, recurrent_dropout=0.1)
    # So that the study's plan, which knows of no halvings, is that of the training.
    job.set("training", max_epochs=3, validations_per_epoch=1, rate=0.01)
    job.run_local()
    metrics = job.metrics()
    return job, {name: metrics[name]["perplexity"] for name in ("valid", "test")}


def study(job, *changes):
    """A line of the study; an error's text where it fails."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.recipe",
                           job.work / "models/current", *changes],
                          cwd=REPOSITORY, env=job.environment(), text=True, capture_output=True)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def test_a_study_without_changes_is_the_training(studied):
    job, perplexities = studied
    found = study(job)
    assert found["updates"] == 3 * -(-200 // 16)
    for name, perplexity in perplexities.items():
        assert found[name] == pytest.approx(perplexity, rel=1e-12)


def test_changes_of_a_study_change_its_result(studied):
    job, perplexities = studied
    values = {"average": 0.5, "beta2": 0.9, "cosine": 1, "epsilon": 0.1, "forget_bias": 0,
              "growth": 2, "input_scale": 0.5, "input_tokens": 0.3, "input_words": 0.3,
              "orthogonal": 1, "shared_masks": 1, "warm_up": 0.5,
              "training.rate": 0.02, "training.beta1": 0.5}
    assert values.keys() - {"training.rate", "training.beta1"} == KNOBS.keys()
    changes = [f"{name}={value}" for name, value in values.items()]
    # Half of them each time: one alone takes as long, and compiles a network.
    found = [study(job, *changes[first::2])["valid"] for first in range(2)]
    assert np.isfinite(found).all() and len({perplexities["valid"], *found}) == 3


def test_an_unknown_change_of_a_study_is_named(studied):
    assert "error: rte is no setting" in study(studied[0], "rte=1")
