"""Several processes by MPI: the bytes of one, whatever their number, and no wait without an end."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import read_checkpoint
from model.data.vocabulary import write_vocabulary
from tests.jobs import REPOSITORY, children

pytestmark = pytest.mark.extras
MPIEXEC = Path(sys.executable).with_name("mpiexec")
# Networks of a few units need no code of their own, and waste no time on it.
UNCOMPILED = "linker=py,optimizer=fast_compile"


@pytest.fixture(scope="module", autouse=True)
def mpi_installed():
    pytest.importorskip("mpi4py", reason="MPI is not there; make test-extras installs it")
    if not MPIEXEC.exists():
        pytest.skip("there is no mpiexec beside Python; make test-extras installs it")


class Trainings:
    """Trainings of one corpus, each with a folder and any number of processes."""

    def __init__(self, folder, make_shards):
        random = np.random.default_rng(5)
        words = [f"w{n}" for n in range(20)]
        parts = [[" ".join(random.choice(words, random.integers(1, 9))) for _ in range(120)]
                 for _ in range(3)]
        shards, vocabulary = make_shards(folder, parts)
        write_vocabulary(vocabulary, folder / "words.tsv")
        self.folder = folder
        self.content = {
            "train_shards": list(map(str, shards[:2])), "valid_shards": [str(shards[2])],
            "vocabulary": str(folder / "words.tsv"),
            "network": {"num_units": 8, "num_layers": 2, "dropout": 0.2, "recurrent_dropout": 0.2,
                        "input_dropout": 0.1, "grad_clipping": 0.05},
            "training": {
                "optimiser": "adam", "rate": 0.02, "window": 32, "denominator": "sentences",
                "micro_batch_sentences": 4, "micro_batch_tokens": 512, "max_epochs": 2,
                "max_minutes": 0, "cooldown": 0.5, "validations_per_epoch": 2, "patience": 4,
                "shards_in_memory": 2, "slots": 4, "seed": 1, "max_norm": 5, "weight_decay": 0.01},
            "tokenization": {"split": "words", "lowercase": True}, "source": "test",
            "checkpoint_minutes": 60.0,
            "text": {"format": 3, "shares": {"valid": 0.1, "test": 0.1},
                     "given": {"valid": None, "test": None}, "seen": {}},
            "previous": None, "device": "cpu"}

    def job(self, name, checkpoint_minutes=60.0, device="cpu", **training):
        """The file of a training's job; without settings of another, of the same."""
        content = {**self.content, "folder": str(self.folder / name), "device": device,
                   "checkpoint_minutes": checkpoint_minutes,
                   "training": {**self.content["training"], **training}}
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(content))
        return path

    def start(self, job, processes, *, launcher=None, options=(), flags=UNCOMPILED, **variables):
        command = [sys.executable, "-m", "model", "train", str(job)]
        if processes > 1:
            command = [*(launcher or [str(MPIEXEC), "-n", str(processes)]), *command,
                       "--processes", str(processes), *options]
        return start(command, flags, **variables)

    def run(self, job, processes, **options):
        """Train to the end, which has to succeed; what it was computed on."""
        process = self.start(job, processes, **options)
        output, _ = process.communicate(timeout=500)
        assert process.returncode == 0, output
        return reports(output)[-1]["result"]


def start(command, flags=UNCOMPILED, **variables):
    """Start a command in a process group of its own, with one thread each."""
    cache = Path(os.environ["PIPELINE_WORK"]).resolve() / "theano"
    environment = {**os.environ, "THEANO_FLAGS": f"base_compiledir={cache},{flags}",
                   "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            start_new_session=True)


def reports(output):
    """What was told in lines of JSON."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def errors(output):
    return [report["error"] for report in reports(output) if "error" in report]


def log_of(folder):
    return [{key: value for key, value in json.loads(line).items()
             if key not in ("seconds", "tokens_per_second")}
            for line in (folder / "log.jsonl").read_text().splitlines()]


def check_same(folder, expected):
    for name in ("model.h5", "last.h5", "best.h5"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()
    assert log_of(folder) == log_of(expected)


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def updates(folder):
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"gradient_norm") if log.exists() else 0


def ranks_of(process):
    """The processes that train, below a launcher, by rank."""
    found = {}
    for number, command in children(process.pid).items():
        if b" -m model train " in command:
            with contextlib.suppress(OSError):
                variables = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
                found[int(dict(v.partition(b"=")[::2] for v in variables)[b"PMI_RANK"])] = number
    return found


def check_none_left(numbers):
    deadline = time.monotonic() + 20
    while True:
        there = [number for number in numbers if _runs(number)]
        if not there:
            return
        assert time.monotonic() < deadline, there
        time.sleep(0.05)


def _runs(number):
    try:
        return ") Z" not in Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False


@pytest.fixture(scope="module")
def trainings(tmp_path_factory, make_shards):
    return Trainings(tmp_path_factory.mktemp("mpi"), make_shards)


@pytest.fixture(scope="module")
def long(trainings):
    """A training that takes some seconds, done by one process; its options and its folder."""
    options = {"checkpoint_minutes": 0.0, "max_epochs": 6}
    trainings.run(trainings.job("long", **options), 1)
    return options, trainings.folder / "long"


@pytest.mark.parametrize("denominator, flags", [("sentences", ""), ("tokens", UNCOMPILED)])
def test_the_result_does_not_depend_on_how_many_took_part(trainings, denominator, flags):
    for processes in (1, 2, 4):
        name = f"{denominator}-{processes}"
        found = trainings.run(trainings.job(name, denominator=denominator), processes, flags=flags)
        assert [row["rank"] for row in found["processes"]] == list(range(processes))
        assert all(row["threads"] == 1 and row["computing"] > 0 for row in found["processes"])
        waiting = [row["waiting"] for row in found["processes"]]
        assert waiting == [0] if processes == 1 else all(waiting)
        check_same(trainings.folder / name, trainings.folder / f"{denominator}-1")
    other = trainings.job(f"{denominator}-slots", denominator=denominator, slots=8)
    trainings.run(other, 1, flags=flags)
    # As other sums of the same numbers differ: else nothing was shown above.
    assert ((trainings.folder / f"{denominator}-slots" / "model.h5").read_bytes()
            != (trainings.folder / f"{denominator}-1" / "model.h5").read_bytes())


def test_another_number_of_processes_goes_on(trainings, long):
    options, expected = long
    job = trainings.job("resumed", **options)
    for processes in (2, 4):
        before = updates(trainings.folder / "resumed")
        process = trainings.start(job, processes)
        wait_for(lambda before=before: updates(trainings.folder / "resumed") > before + 5, process)
        process.terminate()  # the launcher passes it on
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1, output
        assert all("goes on from" in error for error in errors(output)) and errors(output)
        position = read_checkpoint(trainings.folder / "resumed" / "last.h5").position
        assert before < position["updates"] < updates(expected)
        assert not (trainings.folder / "resumed" / "model.h5").exists()
    trainings.run(job, 1)
    check_same(trainings.folder / "resumed", expected)


@pytest.mark.parametrize("victim", ["first", "last", "launcher", "proxy"])
def test_a_kill_leaves_no_process_and_the_next_run_goes_on(trainings, long, victim):
    options, expected = long
    folder = trainings.folder / victim
    job = trainings.job(victim, **options)
    process = trainings.start(job, 2)
    wait_for(lambda: updates(folder) > 5, process)
    ranks = ranks_of(process)
    everyone = [*children(process.pid), process.pid]
    proxy = next(number for number, command in children(process.pid).items()
                 if b"hydra_pmi_proxy" in command)
    os.kill({"first": ranks[0], "last": ranks[1], "launcher": process.pid, "proxy": proxy}[victim],
            signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    check_none_left(everyone)
    assert not (folder / "model.h5").exists()
    trainings.run(job, 4 if victim == "first" else 1)
    check_same(folder, expected)


def test_who_is_missing_is_said_and_all_end(trainings, long):
    options, _ = long
    process = trainings.start(trainings.job("stopped", **options), 4,
                              options=["--longest-wait", "3"])
    wait_for(lambda: updates(trainings.folder / "stopped") > 5, process)
    everyone = [*children(process.pid), process.pid]
    os.kill(ranks_of(process)[2], signal.SIGSTOP)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    told = errors(output)
    assert told
    for error in told:
        assert "seconds for rank 2 on " in error and "[run] longest_wait = 3 allows" in error
    check_none_left(everyone)


@pytest.mark.parametrize("started", [1, 4])
def test_another_number_than_was_asked_for_is_refused(trainings, started):
    job = trainings.job("miscounted")
    launcher = [str(MPIEXEC), "-n", "4"] if started == 4 else []
    process = start([*launcher, sys.executable, "-m", "model", "train", str(job),
                     "--processes", "2"])
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert len(errors(output)) == started
    assert all(f"[run] processes = 2, but MPI counts {started}: " in error
               for error in errors(output))
    assert not (trainings.folder / "miscounted").exists()


def test_a_number_that_does_not_divide_the_slots_is_refused(trainings):
    output, _ = trainings.start(trainings.job("odd"), 3).communicate(timeout=120)
    assert "[run] processes = 3: it must divide [training] slots, which is 4" in errors(output)[0]


def unequal(trainings, first, other):
    """Two processes, each with a job of its own."""
    command = []
    for job in (first, other):
        command += [*([":"] if command else []), "-n", "1", sys.executable, "-m", "model", "train",
                    str(job), "--processes", "2", "--longest-wait", "20"]
    process = start([str(MPIEXEC), *command])
    output, _ = process.communicate(timeout=200)
    assert process.returncode != 0
    return output


def test_a_failure_of_one_process_is_told_and_ends_all(trainings):
    first = trainings.job("damaged")
    damaged = json.loads(first.read_text())
    shutil.copy(damaged["valid_shards"][0], trainings.folder / "damaged.h5")
    os.truncate(trainings.folder / "damaged.h5", 1000)
    other = trainings.folder / "other.json"
    other.write_text(json.dumps(
        {**damaged, "valid_shards": [str(trainings.folder / "damaged.h5")]}))
    told = reports(unequal(trainings, first, other))
    assert [report["damaged"] for report in told if "error" in report] == [
        str(trainings.folder / "damaged.h5")]
    assert not (trainings.folder / "damaged" / "model.h5").exists()


def test_an_error_that_explains_nothing_is_told_with_its_traceback(trainings):
    first = trainings.job("broken")
    other = trainings.folder / "broken-other.json"
    content = json.loads(first.read_text())
    other.write_text(json.dumps({**content, "text": {"nonsense": 1}}))
    assert "TypeError: " in unequal(trainings, first, other)


def test_processes_that_have_come_to_different_parameters_are_told(trainings):
    told = errors(unequal(trainings, trainings.job("seed1"), trainings.job("seed2", seed=2)))
    assert any("have come to different parameters" in error for error in told)
    assert not (trainings.folder / "seed1" / "best.h5").exists()


def test_a_full_disk_ends_all_with_its_name_and_the_next_run_goes_on(trainings, long, full_disk):
    options, expected = long
    disk = full_disk(72)
    (trainings.folder / "full").symlink_to(disk)
    job = trainings.job("full", **options)
    output, _ = trainings.start(job, 2).communicate(timeout=200)
    assert any("No space left" in error for error in errors(output)), output
    assert not (disk / "model.h5").exists()
    subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
    trainings.run(job, 2)
    check_same(disk, expected)


def test_the_cores_are_shared_out(trainings):
    cores = sorted(os.sched_getaffinity(0))
    code = ("import os; os.environ.pop('OMP_NUM_THREADS')\n"
            "from model.mpi import Processes\n"
            "from model.processes import threads\n"
            "processes = Processes(2, 20)\n"
            "{}\n"
            "processes.meet()\n"
            # One write: where Python does not buffer, the other's number would stand in the line.
            "print(f'{{threads()}}\\n', end='', flush=True)\n"
            "processes.finish()")
    for own, expected in (("pass", max(1, len(cores) // 2)),
                          # As where the launcher has bound each to one.
                          (f"os.sched_setaffinity(0, [{cores * 2}[processes.rank]])", 1)):
        process = start([str(MPIEXEC), "-n", "2", sys.executable, "-c", code.format(own)])
        output, _ = process.communicate(timeout=60)
        assert output.split() == [str(expected)] * 2, output


def test_each_process_takes_a_card_of_its_host(monkeypatch):
    from model import engine
    from model.mpi import Processes

    processes = object.__new__(Processes)
    monkeypatch.setattr(engine, "count_cards", lambda: 2)
    taken = []
    for processes.place in range(4):
        taken.append(processes.device("cuda"))
    assert taken == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert processes.device("cuda:1") == "cuda:1" and processes.device("cpu") == "cpu"


def test_tensors_give_the_same_bytes_too(trainings, torch_installed):
    for processes in (1, 2):
        trainings.run(trainings.job(f"tensors-{processes}", device="torch-cpu"), processes,
                      flags="")
    check_same(trainings.folder / "tensors-2", trainings.folder / "tensors-1")


# Two hosts: namespaces of the network, between which nothing but an interface leads.

AGENT = """#!/bin/bash
# In place of ssh: agent [-option] ADDRESS COMMAND...
while [[ $1 == -* ]]; do shift; done
[[ $1 == 10.77.11.1 ]] && host={0} || host={1}
shift
exec ip netns exec $host unshare --uts bash -c "hostname $host; exec $*"
"""


@pytest.fixture
def hosts(tmp_path):
    """The start of a command that launches a process on each, and the first one's sent bytes."""
    names = [f"lm{os.getpid()}{letter}" for letter in "ab"]
    links = [f"lm{os.getpid()}{letter}"[-14:] for letter in "yz"]

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, check=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for number, (name, link) in enumerate(zip(names, links), 1):
            ip("link", "set", link, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.11.{number}/24", "dev", link)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", link, "up")
        subprocess.run(["unshare", "--uts", "true"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        pytest.skip(f"there are no network namespaces here: {error}")
    agent = tmp_path / "agent.sh"
    agent.write_text(AGENT.format(*names))
    agent.chmod(0o755)

    def sent():
        return int(subprocess.run(
            ["ip", "netns", "exec", names[0], "cat",
             f"/sys/class/net/{links[0]}/statistics/tx_bytes"],
            capture_output=True, check=True).stdout)

    def cut():
        ip("-n", names[1], "link", "set", links[1], "down")

    yield (["ip", "netns", "exec", names[0], str(MPIEXEC), "-iface", links[0],
            "-launcher", "ssh", "-launcher-exec", str(agent),
            "-hosts", "10.77.11.1,10.77.11.2", "-ppn", "1", "-n", "2"], sent, cut)
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_two_hosts_give_the_bytes_of_one_and_they_cross_the_network(trainings, long, hosts):
    options, expected = long
    launcher, sent, _ = hosts
    before = sent()
    # Else two namespaces of one machine talk through its memory.
    found = trainings.run(trainings.job("hosts", **options), 2, launcher=launcher,
                          UCX_TLS="tcp,self")
    first, second = (row["host"] for row in found["processes"])
    assert first != second
    check_same(trainings.folder / "hosts", expected)
    # Of each update half of the sums went that way, and the other half's total.
    parameters = read_checkpoint(expected / "model.h5").parameters
    weights = sum(value.size for value in parameters.values())
    assert sent() - before > updates(expected) * 4 * weights


def test_a_lost_network_ends_all(trainings, long, hosts):
    options, expected = long
    launcher, _, cut = hosts
    job = trainings.job("cut", **options)
    process = trainings.start(job, 2, launcher=launcher, options=["--longest-wait", "5"],
                              UCX_TLS="tcp,self")
    wait_for(lambda: updates(trainings.folder / "cut") > 5, process)
    ranks = list(ranks_of(process).values())
    assert len(ranks) == 2
    cut()
    # The launcher may wait for the other host: who started it ends it once a reason was told.
    line = ""
    while "error" not in line:
        line = process.stdout.readline()
        assert line
    assert "rank 1 on " in line
    check_none_left(ranks)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    trainings.run(job, 1)
    check_same(trainings.folder / "cut", expected)
