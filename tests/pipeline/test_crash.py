"""Killed at any moment and run again, a job ends with the bytes of one that was never killed."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import daemon
from tests.jobs import REPOSITORY, Job, children, free_port, kill_group, results

FAILPOINTS = Path(__file__).parent / "failpoints"


@pytest.mark.parametrize("stages, least", [("data", 60), ("training", 40), ("report", 40)])
def test_a_kill_at_every_write(tmp_path, stages, least):
    job = Job(tmp_path / "job")
    environment = job.environment(PYTHONPATH=f"{REPOSITORY}:{FAILPOINTS}")
    done = subprocess.run(
        [sys.executable, str(FAILPOINTS / "every.py"), stages, str(tmp_path / "jobs")],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= least


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What a run that nothing disturbs leaves behind, and how many seconds it took."""
    job = long_job(tmp_path_factory.mktemp("uninterrupted"))
    job.run_local()  # once more below: with everything compiled
    subprocess.run(["rm", "-r", str(job.work)], check=True)
    started = time.monotonic()
    job.run_local()
    return results(job.work), time.monotonic() - started


def long_job(folder):
    """A job of which the training is a good part, with a checkpoint after every update."""
    job = Job(folder / "job", train=200)
    # Every job gets the same corpus under the same name: its place is among the ingredients.
    place = Path(os.environ["PIPELINE_WORK"]).resolve() / "corpus of the crash tests"
    place.mkdir(parents=True, exist_ok=True)
    for split, path in (("path", job.train), ("valid", job.valid), ("test", job.test)):
        kept = place / path.name
        if not kept.exists() or kept.read_bytes() != path.read_bytes():
            kept.write_bytes(path.read_bytes())
        job.set("corpus", **{split: kept})
    job.set("training", max_epochs=4)
    job.set("run", port=free_port())
    return job


def test_a_kill_where_the_processes_hand_over(tmp_path, uninterrupted):
    job = long_job(tmp_path)
    # Each in turn kills the process that writes there: the training, the task, the evaluation.
    for failpoint in (r"replace .*/receipts/shards/", r"fsync .*/\.best\.h5",
                      r"replace .*/model\.h5$", r"replace .*/receipts/models/",
                      r"fsync .*/\.evaluation\.json",
                      r"replace .*/metrics\.json", r"replace .*/receipts/evaluation/",
                      r"replace .*/models/current$", r"replace .*/history\.jsonl",
                      r"replace .*/report/index\.html", r"replace .*/receipts/report/"):
        code, output = job.run("run", "--scheduler", "local", FAILPOINT=failpoint,
                               PYTHONPATH=f"{REPOSITORY}:{FAILPOINTS}")
        assert code not in (0, None), f"{failpoint}: {output}"
    job.run_local()
    assert results(job.work) == uninterrupted[0]
    assert not list(job.work.rglob(".*.tmp"))
    line, = (job.work / "history.jsonl").read_text().splitlines()
    model = job.metrics()["train"]["model"]
    assert json.loads(line)["model"] == Path(model).parent.name
    assert (job.work / "models" / "current").resolve() == (job.work / model).resolve()


def test_the_daemon_gives_a_task_once_to_each_worker(tmp_path):
    # What Luigi's own batches do not see to: where a batch is run again, by another worker than
    # the first time, it is given out ten times a second for a minute or two.
    job = long_job(tmp_path)
    try:
        code, output = job.run("run", FAILPOINT=r"replace .*/receipts/tokens/",
                               FAILPOINT_KILLS="group", PYTHONPATH=f"{REPOSITORY}:{FAILPOINTS}")
        assert code == -signal.SIGKILL, output
        code, output = job.run("run")
        assert code == 0, output
    finally:
        daemon.stop(job.work, int(job.settings["run"]["port"]))
    log = (job.work / "log" / "run.log").read_text()
    assert "TokenizePart" in log and "already running task" not in log


def test_a_killed_process_is_one_line(tmp_path):
    job = long_job(tmp_path)
    job.set("training", max_epochs=1000)
    port = int(job.settings["run"]["port"])
    try:
        for victim, code, words in (
                ("training", 30, "error: python -m model train was ended by SIGKILL, perhaps for "
                                 "want of memory"),
                ("worker", 30, "error: TrainModel: its process was ended by SIGKILL"),
                ("daemon", 40, "error: luigid, the daemon that gives out the tasks, is lost")):
            before = updates(job.work)
            process = job.start("run")
            wait_for(lambda before=before: updates(job.work) > before, process)
            assert kill(victim, process, job.work)
            output, _ = process.communicate(timeout=60)
            assert process.returncode == code, output
            assert words in output and "Traceback" not in output
            assert not at_work(job.work), output
    finally:
        daemon.stop(job.work, port)


def test_a_run_goes_on_after_the_daemon_took_it_for_dead(tmp_path, uninterrupted):
    job = long_job(tmp_path)
    job.set("scheduler", worker_disconnect_delay=1)
    port = int(job.settings["run"]["port"])

    def status():
        with daemon.talking_to(port) as client:  # which also looks for workers that are gone
            return {task["name"]: status for status in ("RUNNING", "FAILED")
                    for task in client.task_list(status, "", limit=False).values()}

    try:
        process = job.start("run")
        wait_for(lambda: updates(job.work) > 2, process)
        os.killpg(process.pid, signal.SIGSTOP)
        wait_for(lambda: status() == {"TrainModel": "FAILED"}, process)
        os.killpg(process.pid, signal.SIGCONT)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert "it has taken it for dead" in output and "Traceback" not in output
        assert results(job.work) == uninterrupted[0]
    finally:
        daemon.stop(job.work, port)


def test_twenty_kills_at_random_moments(tmp_path, uninterrupted):
    expected, duration = uninterrupted
    moments = random.Random(4)
    job = long_job(tmp_path)
    kills = 0
    try:
        for _ in range(100):
            process = job.start("run")
            time.sleep(moments.uniform(0, duration / 2))
            victim = moments.choice(["everything", "parent", "worker", "training", "daemon"])
            if process.poll() is None and kill(victim, process, job.work):
                kills += 1
            # What is left comes to its end by itself, whether it fails or not.
            output, _ = process.communicate(timeout=300)
            assert not at_work(job.work), (victim, output)
            if kills == 20:
                break
            if process.returncode == 0:
                assert results(job.work) == expected, output
                # But the daemon's state, the log, and the note that the folder is ours.
                subprocess.run(["rm", "-r", *map(str, job.work.glob("[!.l]*"))], check=True)
        assert kills == 20, output
        code, output = job.run("run")
        assert code == 0, output
        assert results(job.work) == expected
    finally:
        daemon.stop(job.work, int(job.settings["run"]["port"]))


def kill(victim, process, work):
    """Kill one process of a run, or its whole group; whether there was anything to kill."""
    if victim == "everything":
        os.killpg(process.pid, signal.SIGKILL)
        return True
    if victim == "parent":
        process.kill()
        return True
    below = children(process.pid)
    if victim == "daemon":
        pid = work / "luigid" / "pid"
        numbers = [int(pid.read_text().split()[0])] if pid.exists() else []
        numbers = [number for number in numbers if daemon._is_luigid(number)]
    elif victim == "worker":  # forks of the parent, with its command line
        numbers = [number for number, command in below.items() if b"-m pipeline" in command]
    else:
        numbers = [number for number, command in below.items() if b"-m model" in command]
    for number in numbers:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            return False
    return bool(numbers)


def at_work(work, seconds=10):
    """The processes of a job but the daemon, if there are any still after some seconds."""
    mark = f"PIPELINE_WORK={work}\0".encode()
    deadline = time.monotonic() + seconds
    while True:
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if mark in (folder / "environ").read_bytes() and b"luigid" not in command:
                    found[int(folder.name)] = command
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def training_of(process):
    return [number for number, command in children(process.pid).items()
            if b"-m model train" in command]


def has_ended(number):
    """Whether a process is gone, or only its parent has not taken note of it yet."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def updates(work):
    """How many updates the log of the training tells of."""
    return sum(path.read_text().count("gradient_norm")
               for path in work.glob("models/*/log.jsonl"))


def test_sigterm_writes_a_checkpoint_and_stops(tmp_path, uninterrupted):
    job = long_job(tmp_path)
    job.set("training", checkpoint_minutes=60)
    process = job.start("run", "--scheduler", "local")
    wait_for(lambda: updates(job.work) > 0, process)
    number, = training_of(process)
    os.kill(number, signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert process.returncode != 0
    assert "training stopped after" in output and "Traceback" not in output
    assert list(job.work.glob("models/*/last.h5"))
    assert not list(job.work.glob("models/*/model.h5"))
    job.run_local()
    assert results(job.work) == uninterrupted[0]


def test_a_training_stops_when_its_worker_is_gone_and_the_next_waits_for_it(
        tmp_path, uninterrupted):
    job = long_job(tmp_path)
    process = job.start("run", "--scheduler", "local")
    wait_for(lambda: updates(job.work) > 2, process)
    number, = training_of(process)
    # Stopped, so that it is still there when the next run comes to its training.
    os.kill(number, signal.SIGSTOP)
    process.kill()
    process.wait()
    second = job.start("run", "--scheduler", "local")
    told = ""
    while "another process is training in" not in told:
        line = second.stdout.readline()
        assert line, told
        told += line
    before = updates(job.work)
    time.sleep(1)
    assert updates(job.work) == before
    os.kill(number, signal.SIGCONT)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    assert has_ended(number)
    assert results(job.work) == uninterrupted[0]


def test_a_worker_that_is_told_to_stop_leaves_nothing_running(tmp_path):
    job = long_job(tmp_path)
    process = job.start("run", "--scheduler", "local")
    try:
        wait_for(lambda: updates(job.work) > 2, process)
        number, = training_of(process)
        process.terminate()
        process.wait(timeout=10)
        deadline = time.monotonic() + 10
        while not has_ended(number):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        kill_group(process)
