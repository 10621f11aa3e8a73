"""The commands behind the make targets, each in a process of its own, on a tiny job."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from luigi.rpc import RemoteScheduler

from model.checkpoint import read_checkpoint
from model.data.vocabulary import read_vocabulary
from pipeline import daemon, tasks
from pipeline.__main__ import _table, keep_interrupts
from pipeline.exit_codes import ExitCode
from tests.jobs import REPOSITORY, Job, free_port, kill_group, results, state, write


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A job that has been run once, and what the run printed."""
    job = Job(tmp_path_factory.mktemp("finished") / "job", train=200)
    return job, job.run_local()


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path / "job", train=200)


def test_the_processes_of_a_run_have_the_settings_of_its_command(job):
    mine = job.folder / "mine.cfg"
    mine.write_text("[network]\nnum_units = 5\n[training]\nrate = 0.5\n")
    code, output = job.run("run", "--scheduler", "local", "--profile", str(mine),
                           "--set", "training.rate=0.0625 vocabulary.size=50")
    assert code == 0, output
    model = job.work / "models" / "current-mine"
    found = read_checkpoint(model)
    assert found.settings["network"]["num_units"] == 5
    assert found.settings["training"]["rate"] == 0.0625
    assert len(found.vocabulary) == 50
    settings = json.loads((job.work / "history.jsonl").read_text())["settings"]
    assert settings["training.rate"] == 0.0625 and "network.num_units" not in settings
    assert job.run("why", "--profile", str(mine), "--set", "training.rate=0.0625",
                   "--set", "vocabulary.size=50")[1].startswith("nothing has changed")


def test_a_plan_says_what_a_run_then_takes(job):
    code, before = job.run("plan")
    assert code == 0, before
    assert not (job.work / "parts").exists() and not (job.work / "models").exists()
    job.run_local()
    metrics = job.metrics()
    row = dict(line.split(maxsplit=1) for line in before.splitlines() if " " in line)
    corpus = metrics["corpus"]["sentences"]
    trained = corpus - metrics["valid"]["sentences"] - metrics["test"]["sentences"]
    assert row["sentences"] == (f"{trained} for training, {metrics['valid']['sentences']} for "
                                f"validation, {metrics['test']['sentences']} for the test")
    tokens = re.findall(r"\d[\d,]*", row["tokens"])
    assert int(tokens[0].replace(",", "")) * 2 == metrics["train"]["tokens"]  # two epochs
    assert tokens[1:] == [str(metrics[split]["tokens"]) for split in ("valid", "test")]
    assert row["vocabulary"] == f"{metrics['vocabulary']['size']} words"
    log = [json.loads(line) for line in next(job.work.glob("models/*/log.jsonl")).open()]
    validations = sum("validation_perplexity" in entry for entry in log)
    assert row["updates"].startswith(
        f"{metrics['train']['updates']} and {validations} validations in 2 epochs")
    written = sum(path.stat().st_size for folder in ("parts", "tokens", "shards", "baseline",
                  "models") for path in (job.work / folder).rglob("*.*") if not path.is_symlink())
    assert 0.5 * written < 1e6 * int(re.match(r"\d+", row["disk"])[0]) + 5e5
    assert job.run("plan") == (0, "nothing has changed: a run would do nothing\n")
    code, after = job.run("plan", "--set", "training.seed=7")
    assert code == 0 and re.search(r"preparation +0.00  \(done\)", after)
    assert re.search(r"training +0.\d\d$", after, re.MULTILINE)


def test_a_plan_of_what_is_still_to_be_fetched_says_so(job):
    job.set("corpus", path="http://127.0.0.1:9/none.txt")
    code, output = job.run("plan")
    assert code == ExitCode.NOT_BEGUN and "is known when it has been fetched" in output


def test_a_run_tells_why_and_what_came_of_it(finished):
    job, output = finished
    for stage in ("SplitCorpus", "TokenizePart", "BuildVocabulary", "EncodePart", "CountNGrams",
                  "TrainModel", "EvaluatePerplexity", "WriteReport"):
        assert f"{stage}" in output and "it was never made" in output
    metrics = job.metrics()
    for split in ("test", "valid"):
        assert metrics[split].keys() >= {"perplexity", "perplexity_without_unk", "oov_rate",
                                        "tokens", "sentences"}
        assert f"{metrics[split]['perplexity']:,.2f}" in output
    assert metrics["test"]["sentences"] == 60 and metrics["corpus"]["sentences"] == 320
    train, valid, test = (path.read_text().splitlines()
                          for path in (job.train, job.valid, job.test))
    for split, lines in (("valid", valid), ("test", test)):
        count = sum(line in train for line in lines)
        assert metrics[split]["sentences_also_in_training"] == {"count": count, "share": count / 60}
    vocabulary = read_vocabulary(next((job.work / "vocabulary").glob("*.tsv")))
    unknown = sum(word not in vocabulary.words
                  for line in train for word in line.replace("word", "word ").split())
    assert metrics["vocabulary"] == {"size": 60, "unknown_in_training": unknown,
                                     "words_not_in_training": 0}
    assert unknown and metrics["headline"] == "perplexity"
    assert metrics["train"]["epochs"] == 2
    assert metrics["train"]["updates"] == 2 * -(-200 // 16)
    assert metrics["train"]["tokens_per_second"] > 0
    report = job.work / "report" / "index.html"
    assert str(report) in output and report.is_file()


def test_the_network_is_compared_and_interpolated_with_ngrams(finished):
    job, output = finished
    metrics = job.metrics()
    mixture, baseline = metrics["mixture"], metrics["baselines"]["kneser_ney_5"]
    assert (job.work / mixture["model"]).is_file() and mixture["baseline"] == "kneser_ney_5"
    # No worse than either on the text that the weight was chosen on.
    assert mixture["valid"] <= min(metrics["valid"]["perplexity"], baseline["valid"]) * 1.0001
    for name, figures in (("mixture", mixture), ("5-gram", baseline)):
        assert re.search(rf"^{name} perplexity +{figures['test']:,.2f} +{figures['valid']:,.2f}$",
                         output, re.M)
    weight = mixture["network_weight"]
    assert f"mixture: {weight:.2f} of the network and {1 - weight:.2f} of the 5-gram" in output
    confidence = metrics["confidence"]
    low, high = confidence["interval"]
    assert low < metrics["test"]["perplexity"] < high and confidence["figure"] == "perplexity"
    assert f"interval of the test perplexity: {low:,.2f} to {high:,.2f}\n" in output
    difference = confidence["baseline"]["difference"]
    assert difference == pytest.approx(metrics["test"]["perplexity"] - baseline["test"])
    low, high = confidence["baseline"]["interval"]
    assert low < difference < high
    assert f"5-gram model's: {difference:+,.2f} ({low:+,.2f} to {high:+,.2f})\n" in output
    without = _table({**metrics, "mixture": None})
    assert "gram perplexity" in without and "5-gram" not in without and "mixture" not in without


def test_the_result_shows_sentences_that_also_occur_in_training(finished):
    metrics = finished[0].metrics()
    for split, count in (("test", 0), ("valid", 0)):
        metrics[split]["sentences_also_in_training"] = {"count": count, "share": count / 60}
    assert "also in training" not in _table(metrics)
    metrics["valid"]["sentences_also_in_training"] = {"count": 3, "share": 0.05}
    assert re.search(r"^also in training +0 \(0.00%\) +3 \(5.00%\)$", _table(metrics), re.M)


def test_the_result_says_that_training_has_no_unknown_word(finished):
    metrics = finished[0].metrics()
    assert "never occurs" not in _table(metrics)
    metrics["headline"] = "perplexity_without_unk"
    lines = _table(metrics).splitlines()
    assert [line[:26].rstrip() for line in lines[1:3]] == ["perplexity without <unk>", "perplexity"]
    assert lines[-1].startswith("<unk> never occurs in training")
    assert {line[:26].rstrip() for line in lines} >= {
        f"{name} without <unk>" for name in ("mixture", "5-gram", "bigram", "unigram")}


@pytest.mark.extras
@pytest.mark.usefixtures("torch_installed")
def test_the_device_is_told_and_is_no_reason_to_train_again(job):
    code, output = job.run("run", "--scheduler", "local", "--device", "torch-cpu")
    assert code == 0 and "tokens/s on torch-cpu, products in single\n" in output
    train = job.metrics()["train"]
    assert (train["device"], train["precision"]) == ("torch-cpu", "single")
    assert train["peak_device_memory"] is None
    assert "on torch-cpu" in (job.work / "report" / "index.html").read_text()
    assert "TrainModel" not in job.run_local()


def test_a_device_that_is_not_there_is_told_before_anything_is_prepared(job):
    code, output = job.run("run", "--scheduler", "local", "--device", "cuda:77")
    assert code == ExitCode.NOT_BEGUN and not (job.work / "parts").exists()
    assert output.startswith("error: device = cuda:77") and len(output.splitlines()) == 1


def test_a_precision_of_cards_is_refused_on_the_processor(job):
    job.set("training", precision="bf16")
    code, output = job.run("run", "--scheduler", "local")
    assert code == ExitCode.BAD_INPUT and not (job.work / "parts").exists()
    assert "[training] precision = bf16 needs a card" in output


def test_an_unchanged_run_does_nothing(finished):
    job, _ = finished
    before = results(job.work)
    for path in (job.train, job.valid, job.test):
        os.utime(path)
    output = job.run_local()
    assert "TrainModel" not in output and "SplitCorpus" not in output
    assert results(job.work) == before
    assert job.run("why") == (0, "nothing has changed: a run would do nothing\n")


def test_why_names_what_differs_and_runs_nothing(finished):
    job, _ = finished
    before = results(job.work)
    code, output = job.run("why", "--set", "training.rate=0.002")
    assert code == 0
    assert output.splitlines()[0] == "TrainModel: training: rate is 0.002, was 0.012"
    assert results(job.work) == before


def test_what_only_looks_writes_nothing(job, tmp_path):
    job.set("run", port=free_port())
    for command in ("why", "status"):
        assert job.run(command)[0] == 0
        assert not job.work.exists()
    job.build(tasks.SplitCorpus)
    part, *_ = (job.work / "parts").iterdir()
    (manifest,) = (job.work / "corpus").glob("*.json")
    for path in (job.train, manifest, part):  # the same bytes, in other files
        shutil.copyfile(path, tmp_path / "copy")
        os.replace(tmp_path / "copy", path)
    before = state(job.work)
    for command in ("why", "status"):
        assert job.run(command)[0] == 0
        assert state(job.work) == before


def test_report_makes_the_report_again_and_nothing_else(finished):
    job, _ = finished
    before, page = results(job.work), job.work / "report" / "index.html"
    made = page.stat().st_mtime_ns
    code, output = job.run("report")
    assert code == 0 and str(page) in output
    assert page.stat().st_mtime_ns > made
    assert results(job.work) == before


def test_a_history_of_no_runs(job):
    assert job.run("history") == (1, f"error: there is no working folder {job.work}; run first\n")
    job.work.mkdir()
    assert job.run("history") == (0, f"there was no whole run in {job.work} yet\n")


def test_report_and_gc_want_a_complete_run(job):
    for command in ("report", "gc"):
        code, output = job.run(command)
        assert code == 1 and "run first" in output and "Traceback" not in output
        assert not job.work.exists()


def test_gc_lists_and_removes_when_told_so(finished, tmp_path):
    original, _ = finished
    job = Job(tmp_path / "job", train=200)
    shutil.copytree(original.work, job.work, symlinks=True)
    job.set("network", num_units=5)
    job.run_local()
    before = results(job.work)
    code, output = job.run("gc")
    assert code == 0
    *listed, total, _, model = output.splitlines()
    assert any("receipts/evaluation/" in line for line in listed)
    assert not any("models/" in line for line in listed)
    assert total.startswith(f"{len(listed)} files") and "REMOVE=yes" in total
    name = model.split()[1]
    assert "4 units" in model and results(job.work) == before
    code, output = job.run("gc", "--remove", "--models", name)
    assert code == 0 and output.splitlines()[-1].startswith("removed ")
    assert not (job.work / "models" / name).exists()
    assert job.run("why") == (0, "nothing has changed: a run would do nothing\n")
    code, output = job.run("gc", "--remove", "--models", name)
    assert code == 1 and output.count("\n") == 1 and f"there is no model {name}" in output


def test_models_are_kept_up_to_a_number_and_the_log_to_a_size(finished, tmp_path):
    original, _ = finished
    job = Job(tmp_path / "job", train=200)
    shutil.copytree(original.work, job.work, symlinks=True)
    log = job.work / "log" / "run.log"
    _, *runs = log.read_text().split("INFO logging disabled in settings")
    assert max(run.count("DEBUG Asking scheduler for work...") for run in runs) == 1
    log.write_text("x" * (11 << 20))
    first, = (model.parent for model in job.work.glob("models/*/model.h5"))
    job.set("training", seed=2)
    job.set("run", keep_models=1)
    output = job.run_local()
    assert f"removed the model {first}: [run] keep_models = 1" in output
    second, = (model.parent for model in job.work.glob("models/*/model.h5"))
    assert second != first and second.name in str(job.metrics()["train"]["model"])
    assert log.stat().st_size < 1 << 20
    assert log.with_name("run.log.1").stat().st_size == 11 << 20
    assert job.run("why") == (0, "nothing has changed: a run would do nothing\n")


def test_the_tasks_can_be_run_by_luigi_itself(finished):
    job, _ = finished
    before = job.metrics()
    (job.work / "report" / "metrics.json").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "luigi", "--module", "pipeline", "EvaluatePerplexity",
         "--local-scheduler", "--no-lock"], cwd=REPOSITORY, env=job.environment(),
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert job.metrics() == before


def test_a_profile_goes_before_the_settings(job):
    job.run_local()
    code, output = job.run("why", "--profile", "reference")
    assert code == 0
    assert "training: optimiser is adagrad, was adam" in output
    assert "network: num_units is 4096, was 4" in output


def test_a_missing_corpus_is_one_clear_error(job):
    job.set("corpus", path="none.txt")
    code, output = job.run("run", "--scheduler", "local")
    assert code == 65 and "error: there is no corpus 'none.txt'" in output
    assert "Traceback" not in output


def test_text_on_two_sides_is_one_clear_error(job):
    job.set("corpus", path=job.folder / "t*.txt")
    for command in (["run", "--scheduler", "local"], ["why"]):
        code, output = job.run(*command)
        assert code == 65 and "Traceback" not in output
        assert f"error: {job.test} is given for training and for the test both" in output
    assert not (job.work / "parts").exists()


def test_a_bad_line_stops_the_run_with_its_place_or_is_set_aside(job):
    job.train.write_bytes(job.train.read_bytes() + b"caf\xe9 .\n")
    # As it is where nobody says otherwise: success, whatever has failed.
    job.set("retcode", task_failed=0)
    code, output = job.run("run", "--scheduler", "local")
    assert code == 65 and f"{job.train}, line 201, byte offset" in output
    job.set("corpus", on_bad_line="set_aside")
    output = job.run_local()
    (table,) = job.work.glob("corpus/*.set_aside.tsv")
    assert f"1 of 321 lines were set aside: {table}" in output
    assert len(table.read_text().splitlines()) == 2
    assert job.metrics()["corpus"]["set_aside"] == 1


def test_any_name_that_the_system_allows_is_a_file_of_the_corpus(job):
    folder = job.folder / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    odd = folder / os.fsdecode(b" \t\n\xff\xe2\x80\xae'\"<b>*?$x\\.txt")
    shutil.move(job.train, odd)
    os.utime(odd, (0, 0))
    job.set("corpus", path="", on_bad_line="set_aside")
    job.settings["corpus"].pop("path")
    odd.write_bytes(odd.read_bytes() + b"caf\xe9 .\n")
    given = ["--corpus", str(folder)]
    code, output = job.run("run", "--scheduler", "local", "--corpus", str(odd))
    assert code == 0, output
    assert job.metrics()["corpus"]["sentences"] == 320
    table, = job.work.glob("corpus/*.set_aside.tsv")
    row = table.read_text().splitlines()[1].split("\t")
    assert row[0].endswith("caf\\udce9/ \\t\\n\\udcff\\u202e'\"<b>*?$x\\.txt") and row[1] == "201"
    assert job.run("why", *given) == (0, "nothing has changed: a run would do nothing\n")
    odd.rename(folder / os.fsdecode(b"\xff.txt"))
    code, output = job.run("why", *given)
    assert code == 0 and "\\udcff.txt is new" in output, output


def test_the_home_folder_of_nobody(tmp_path):
    done = subprocess.run([sys.executable, "-m", "pipeline", "run", "--work", "~nobody.here/work"],
                          cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 65
    assert done.stderr == ("error: the working folder ~nobody.here/work begins with the name of a "
                           "user that there is not\n")
    assert not (REPOSITORY / "~nobody.here").exists()


def test_a_working_folder_that_cannot_be_made(job, tmp_path):
    (tmp_path / "file").write_text("no folder")
    job.work = tmp_path / "file" / "work"
    code, output = job.run("run", "--scheduler", "local")
    assert code == 1 and f"cannot write in the working folder {job.work}" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("limit", [300, 6_000])
def test_a_full_disk_publishes_nothing_and_the_next_run_goes_on(job, limit):
    """A bound on the size of files fails the same calls as a disk that is full."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", "--scheduler", "local"], cwd=REPOSITORY,
        env=job.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    output, _ = process.communicate(timeout=300)
    assert process.returncode not in (0, None), output
    assert "cannot write" in output and "File too large" in output, output
    assert "Traceback" not in output
    assert not (job.work / "report" / "index.html").exists()
    assert not list(job.work.rglob(".*.tmp"))
    job.run_local()


# The disk has no room for the lock, for the whole run, for the shards, for the training.
@pytest.mark.parametrize("size, message", [
    (4, "No space left on device"), (60, "are free there"), (150, "No space left on device"),
    (340, "No space left on device")])
def test_a_small_disk_is_one_clear_error(job, full_disk, size, message):
    job.work = full_disk(size) / "work"
    code, output = job.run("run", "--scheduler", "local")
    assert code in (1, 30) and message in output
    assert "Traceback" not in output
    assert not list(job.work.rglob(".*.tmp"))


def test_two_runs_at_once(job):
    first, second = (job.start("run", "--scheduler", "local") for _ in range(2))
    outputs = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    waiting = [output for output in outputs if "another run (process" in output]
    assert len(waiting) == 1
    assert "TrainModel" not in waiting[0], "the second has nothing left to do"


def listening(process):
    """The addresses a process listens on, as the kernel writes them, IPv4 and IPv6."""
    sockets = {os.readlink(file) for file in Path(f"/proc/{process}/fd").iterdir()
               if file.is_symlink()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.append(fields[1].split(":")[0])
    return found


def test_through_the_daemon(job, monkeypatch):
    port = free_port()
    job.set("run", port=port)
    # A proxy would not find the daemon.
    proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    try:
        assert job.run("status") == (0, f"no daemon answers on {daemon.url(port)}\n")
        code, output = job.run("run", **proxy)
        assert code == 0, output
        assert daemon.url(port) in output
        process = int((job.work / "luigid" / "pid").read_text().split()[0])
        assert listening(process) == ["0100007F"]
        code, output = job.run("status", **proxy)
        assert code == 0 and re.search(r"^done +100.0 % TrainModel  made in", output, re.M)
        assert re.search(r"^done +100.0 % TokenizePart train 1-\d", output, re.M)
        shown = RemoteScheduler(daemon.url(port)).task_list("DONE", "", limit=False).values()
        assert {task["name"] for task in shown} == {
            "SplitCorpus", "TokenizePart", "BuildVocabulary", "EncodePart", "EncodeCorpus",
            "CountNGrams", "TrainModel", "EvaluatePerplexity", "ConcludeRun", "WriteReport"}
        for task in shown:
            assert not re.search("[0-9a-f]{17}", task["display_name"])
            if task["name"] in ("TokenizePart", "EncodePart"):
                assert re.search(r"part=(train|valid|test) \d+", task["display_name"])
                assert "contents" not in task["display_name"]
            if task["time_running"] is None:
                # Tokens of parts that were made in other groups than the shards are.
                assert task["name"] == "TokenizePart"
                continue
            assert task["status_message"], task
            assert task["progress_percentage"] == 100, task
        with urllib.request.urlopen(f"{daemon.url(port)}/metrics") as answer:
            assert b"luigi" in answer.read()
        with daemon.talking_to(port) as client:
            client.pause()  # as the button on its page does
        code, output = job.run("run")
        assert code == 1 and re.search(r"^error: the scheduler is paused", output, re.M), output
        assert f"{daemon.url(port)}/api/unpause" in output
        assert job.run("status")[1].startswith("the scheduler is paused")
        urllib.request.urlopen(f"{daemon.url(port)}/api/unpause").close()
        code, output = job.run("run")
        assert code == 0 and "TrainModel" not in output
        code, output = job.run("daemon")
        assert (code, output) == (0, f"luigid was listening already at {daemon.url(port)}\n")
        assert job.run("stop") == (0, "the daemon has stopped\n")
        assert not daemon.answers(port)
        assert job.run("stop") == (0, "no daemon is running\n")
    finally:
        daemon.stop(job.work, port)


def test_status_shows_why_a_task_failed(job):
    port = free_port()
    job.set("run", port=port)
    words = job.folder / "words.txt"
    words.touch()
    job.set("vocabulary", word_list=words)
    try:
        assert job.run("run")[0] == 65
        code, output = job.run("status")
        failed, = (line for line in output.splitlines() if line.startswith("failed"))
        assert "BuildVocabulary" in failed and f"the word list {words} is empty" in failed
    finally:
        daemon.stop(job.work, port)


def test_an_interrupt_that_python_ignores_comes_again(monkeypatch):
    class Interrupted:
        def __del__(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "unraisablehook", None)  # to be restored
    before = signal.getsignal(signal.SIGALRM)
    try:
        keep_interrupts()
        with pytest.raises(KeyboardInterrupt):
            Interrupted()
            time.sleep(10)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_interrupted_run_says_so(job):
    process = job.start("run", "--scheduler", "local")
    try:
        for line in process.stdout:
            if "TokenizePart" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode not in (0, None), output
    finally:
        if process.poll() is None:
            kill_group(process)


def test_an_edit_trains_from_the_previous_model_and_says_so(finished, tmp_path):
    original, _ = finished
    job = Job(tmp_path / "job", train=200)
    shutil.copytree(original.work, job.work, symlinks=True)
    write(job.train, [*job.lines, "word01 word02 word03"])
    output = job.run_local()
    assert "it starts from the weights of" in output
    receipts = [json.loads(path.read_text())
                for path in job.work.glob("receipts/models/model/*.json")]
    first, second = sorted(receipts, key=lambda receipt: receipt["finished"])
    assert first["ingredients"]["started_from"] is None
    assert second["ingredients"]["started_from"] == first["sha256"]
    # It is compared with the first on the same sentences, and both stand in the history.
    last = job.metrics()["confidence"]["last_run"]
    before, after = original.metrics()["test"]["perplexity"], job.metrics()["test"]["perplexity"]
    assert last["difference"] == pytest.approx(after - before)
    assert last["interval"][0] < last["difference"] < last["interval"][1]
    name = Path(first["path"]).parent.name
    assert last["model"] == name
    assert f"on this text, of model {name[:8]}: {last['difference']:+,.2f} (" in output
    code, table = job.run("history")
    assert code == 0
    newest = Path(second["path"]).parent.name
    assert [line.split()[3] for line in table.splitlines()[1:-1]] == [name[:8], newest[:8]]
    assert table.splitlines()[-1] == f"{job.work}/models/current names {newest}"
    assert f"{before:,.2f}" in table and f"{after:,.2f}" in table


def test_a_worse_model_is_not_the_current_one_and_the_run_says_so(finished, tmp_path):
    original, _ = finished
    job = Job(tmp_path / "job", train=200)
    shutil.copytree(original.work, job.work, symlinks=True)
    first = (job.work / "models" / "current").resolve().parent.name
    job.set("training", rate=1e-9)
    job.set("run", tolerance=2)
    for _ in range(2):  # the second run makes nothing, and nothing is better
        code, output = job.run("run", "--scheduler", "local")
        assert code == 3, output
        assert "perplexity  " in output and "The run failed" not in output
        second = Path(job.metrics()["train"]["model"]).parent.name
        assert re.search(f"models/current still names {first} and not the new model {second}, "
                         r"which is worse: validation perplexity .* after .*, \+.* per cent, and "
                         r"\[run\] tolerance is 2$", output, re.M)
        assert (job.work / "models" / "current").resolve().parent.name == first != second
    assert len(job.run("history")[1].splitlines()) == 1 + 2 + 1
    code, output = job.run("gc", "--models", first)
    assert code == 1 and f"the model {first} is in use" in output
    job.set("run", tolerance=1000)
    assert "ConcludeRun: the model is to be the current one" in job.run_local()
    assert (job.work / "models" / "current").resolve().parent.name == second
    assert len(job.run("history")[1].splitlines()) == 1 + 2 + 1
    assert job.run("why") == (0, "nothing has changed: a run would do nothing\n")


def test_each_profile_has_a_current_model_of_its_own(finished, tmp_path):
    original, _ = finished
    job = Job(tmp_path / "job", train=200)
    shutil.copytree(original.work, job.work, symlinks=True)
    before = os.readlink(job.work / "models" / "current")
    code, output = job.run("run", "--scheduler", "local", "--profile", "tokenized")
    assert code == 0, output
    assert "models/current-tokenized names" in output
    assert os.readlink(job.work / "models" / "current") == before
    assert f"models/{os.readlink(job.work / 'models' / 'current-tokenized')}" == job.metrics()[
        "train"]["model"]
    assert job.run("history")[1].splitlines()[2].split()[2] == "tokenized"
