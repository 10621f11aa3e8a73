"""Hosts that help with a run: what they take, and that nothing that befalls them is its end."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from luigi.rpc import RPCError

from model.system.errors import UserError
from pipeline import daemon, job_settings, settings, tasks, workers
from pipeline.stage import NamedPart, part_parameters
from tests.jobs import REPOSITORY, Job, children, free_port, kill_group, results

FAILPOINTS = Path(__file__).parent / "failpoints"


# The command ``run`` with the shards as its end: what comes then stays on one host.
PREPARE = """
import sys
from pathlib import Path
from model.system.files import publish
from pipeline import __main__ as commands, tasks

work = Path(sys.argv[sys.argv.index("--work") + 1])
with publish(work / "report" / "metrics.json") as file:
    file.write_text('{"train": {"model": "none"}}')
tasks.WriteReport.needs = lambda self: [self.clone(tasks.EncodeCorpus)]
tasks.WriteReport.fault = lambda self: None
commands._bound_models = lambda *_: None
commands._table = lambda _: sys.exit(0)
sys.exit(commands.main(sys.argv[1:]))
"""


def prepare_command(job, *arguments):
    return [sys.executable, "-c", PREPARE, "run", "--work", str(job.work), *arguments]


def shared_job(folder, port, address="127.0.0.1"):
    """A job of many parts, whose luigid hosts share."""
    job = Job(folder / "job", train=2500)
    # Not as luigi.cfg has it, so that the tokens tell which settings a host had.
    job.set("tokens", lowercase="false")
    job.set("corpus", sentences_per_part="30")
    job.set("run", scheduler=f"http://{address}:{port}", workers=1)
    job.set("scheduler", worker_disconnect_delay=3)
    return job


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The job, and what it makes without help."""
    job = shared_job(tmp_path_factory.mktemp("alone"), free_port())
    job.work.mkdir()
    (job.work / ".lstm-batch-pipeline").touch()
    whole_run(job, "--scheduler", "local")
    return job, results(job.work)


@pytest.fixture
def shared(alone, tmp_path):
    """The same job in a new folder, its luigid started."""
    job, _ = alone
    port = free_port()
    job.work = tmp_path / "work"
    job.set("run", scheduler=f"http://127.0.0.1:{port}")
    code, output = job.run("daemon")
    assert code == 0, output
    yield job
    with contextlib.suppress(UserError):
        daemon.stop(job.work, url(job))


def url(job):
    return job.settings["run"]["scheduler"]


@contextlib.contextmanager
def helping(job, *command, **environment):
    """A helper that is told where the luigid and the folder are, and nothing else."""
    log = open(job.folder / f"helper{len(list(job.folder.glob('helper*')))}", "w+")  # noqa: SIM115
    process = subprocess.Popen(
        [*command, sys.executable, "-m", "pipeline", "worker", "--scheduler", url(job), "--work",
         str(job.work)], cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True,
        env={**job.environment(), "LUIGI_CONFIG_PATH": "", **environment})
    process.told = lambda: Path(log.name).read_text()
    process.stdout = log
    try:
        yield process
    finally:
        kill_group(process)


def wait_until(condition, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start(job, *arguments):
    return subprocess.Popen(
        prepare_command(job, *arguments), cwd=REPOSITORY, env=job.environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def whole_run(job, *arguments, while_it_runs=lambda process: None):
    """Prepare the job, which has to succeed; returns the output."""
    process = start(job, *arguments)
    try:
        while_it_runs(process)
        output, _ = process.communicate(timeout=240)
    finally:
        kill_group(process)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert not list(job.work.rglob(".locked-by"))
    return output


def parts_of(text):
    """The places of parts that a process says it makes."""
    return re.findall(r"^((?:TokenizePart|EncodePart) [^:(]+):", text, re.M)


def test_a_helper_takes_its_share_and_the_bytes_are_the_same(alone, shared):
    with helping(shared) as helper, helping(shared) as another:
        wait_until(lambda: "helping" in helper.told() and "helping" in another.told())
        output = whole_run(shared)
        told = helper.told() + another.told()
    assert results(shared.work) == alone[1]
    assert len(parts_of(told)) >= 3 and parts_of(output), told
    # Each part was made once.
    made = parts_of(told) + parts_of(output)
    assert len(made) == len(set(made))
    assert "TrainModel" not in told and "BuildVocabulary" not in told
    assert "Traceback" not in told


def test_the_run_goes_on_when_the_host_of_a_helper_disappears(alone, shared):
    with helping(shared, FAILPOINT=r"replace .*/receipts/tokens/", FAILPOINT_KILLS="group",
                 PYTHONPATH=f"{REPOSITORY}:{FAILPOINTS}") as helper:
        wait_until(lambda: "helping" in helper.told())
        output = whole_run(shared)
        assert helper.wait(timeout=10) == -signal.SIGKILL
    lost, *_ = parts_of(helper.told())
    assert lost in parts_of(output)
    assert results(shared.work) == alone[1]


def test_the_run_takes_back_what_a_helper_fails_at(alone, shared):
    # Only the process that makes the part is killed, each time; the helper stops at the first.
    with helping(shared, FAILPOINT=r"replace .*/receipts/tokens/",
                 PYTHONPATH=f"{REPOSITORY}:{FAILPOINTS}") as helper:
        wait_until(lambda: "helping" in helper.told())
        output = whole_run(shared)
        wait_until(lambda: "a task has failed here" in helper.told())
        assert helper.poll() is None
    lost, *_ = parts_of(helper.told())
    assert lost in parts_of(output)
    assert results(shared.work) == alone[1]


def test_the_run_and_its_helpers_go_on_when_the_scheduler_restarts(alone, shared, tmp_path):
    def restart(process):
        wait_until(lambda: list(shared.work.glob("receipts/tokens/*/*.json")))
        number = int((shared.work / "luigid" / "pid").read_text().split()[0])
        os.kill(number, signal.SIGKILL)
        wait_until(lambda: "does not answer" in helper.told())
        assert process.poll() is None
        assert shared.run("daemon")[0] == 0

    with helping(shared) as helper:
        wait_until(lambda: "helping" in helper.told())
        whole_run(shared, while_it_runs=restart)
        assert helper.poll() is None
    assert results(shared.work) == alone[1]


def test_a_run_that_is_killed_leaves_helpers_that_help_the_next(alone, shared):
    with helping(shared) as helper:
        wait_until(lambda: "helping" in helper.told())
        process = start(shared)
        wait_until(lambda: list(shared.work.glob("receipts/tokens/*/*.json")))
        kill_group(process)
        before = len(parts_of(helper.told()))
        shutil.rmtree(shared.work / "shards", ignore_errors=True)
        shutil.rmtree(shared.work / "tokens", ignore_errors=True)
        whole_run(shared)
        assert len(parts_of(helper.told())) > before
    assert results(shared.work) == alone[1]


@pytest.fixture
def two_hosts():
    """Two network namespaces with a line between them; the names, and the first one's address."""
    names = [f"host-{side}-{os.getpid()}" for side in "ab"]

    def ip(*arguments):
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", "line", "netns", names[0], "type", "veth", "peer", "name", "line",
           "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.213.7.{number}/24", "dev", "line")
            for device in ("lo", "line"):
                ip("-n", name, "link", "set", device, "up")
        yield names, "10.213.7.1", lambda name: json.loads(
            ip("-n", name, "-s", "-j", "link", "show", "line"))[0]["stats64"]["rx"]["bytes"]
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=True)


def test_two_hosts_with_a_folder_that_both_see(alone, two_hosts, tmp_path):
    (first, second), address, received = two_hosts
    job, expected = alone
    job.work = tmp_path / "work"
    job.set("run", scheduler=f"http://{address}:{free_port()}")
    here = ["ip", "netns", "exec", first]
    # With process numbers of its own, as another host has.
    there = ["ip", "netns", "exec", second, "unshare", "--pid", "--fork", "--kill-child",
             "--mount-proc", "--uts", "sh", "-c", 'hostname another && exec "$@"', "sh"]

    def command(*arguments):
        return subprocess.run([*here, *arguments], text=True, cwd=REPOSITORY, timeout=240,
                              env=job.environment(), capture_output=True)

    started = command(sys.executable, "-m", "pipeline", "daemon")
    assert started.returncode == 0, started.stderr
    try:
        with helping(job, *there) as helper:
            wait_until(lambda: "helping" in helper.told())
            before = received(second)
            run = command(*prepare_command(job))
            assert run.returncode == 0, run.stderr
            assert received(second) > before + 10_000
            assert len(parts_of(helper.told())) >= 2, helper.told()
        logs = list((job.work / "log").glob("worker-another-*.log"))
        assert len(logs) == 1
    finally:
        stopped = command(sys.executable, "-m", "pipeline", "stop")
        assert stopped.stdout == "the daemon has stopped\n", stopped
    assert results(job.work) == expected


def test_a_worker_says_what_it_lacks(tmp_path):
    job = Job(tmp_path / "job", train=20)
    job.work.mkdir()
    code, output = job.run("worker", "--scheduler", "http://127.0.0.1:1")
    assert code == 1 and "is no working folder of a run, as this host sees it" in output
    code, output = job.run("worker", "--scheduler", "local")
    assert code == 1 and "cannot be helped" in output
    code, output = job.run("run", "--scheduler", "http://127.0.0.1:1")
    assert code == 1 and "make daemon SCHEDULER=http://127.0.0.1:1" in output
    code, output = job.run("run", "--scheduler", "ftp://x")
    assert code == 2 and "an address like http://10.0.0.1:8082" in output


@pytest.mark.parametrize("address", ["0.0.0.0", "0"])
def test_luigid_does_not_listen_to_every_network(tmp_path, address):
    with pytest.raises(UserError, match="where every network would reach it"):
        daemon.start(tmp_path, f"http://{address}:{free_port()}")
    assert not (tmp_path / "luigid").exists()


@pytest.fixture
def helper_client(monkeypatch, tmp_path):
    """A helper's client, whose daemon gives one answer to everything; and a task of a run's."""
    client = workers.HelperClient("http://127.0.0.1:1", tmp_path)
    monkeypatch.setattr(client, "_fetch", lambda url, body: json.dumps({"response": client.answer}))
    client.answer = {}
    return client


def offer(work, **changes):
    task = tasks.TokenizePart(
        working_folder=str(work), settings_digest="0123456789abcdef",
        **part_parameters([NamedPart("train", 1, "0" * 16)]))
    return {"task_id": task.task_id, "running_tasks": [], "n_pending_tasks": 1,
            "n_unique_pending": 0, "task_family": "TokenizePart", "task_module": "pipeline.tasks",
            "task_params": task.to_str_params(), **changes}


def test_a_helper_takes_the_parts_of_its_folder_and_nothing_else(helper_client, tmp_path):
    client = helper_client
    mine = offer(tmp_path)
    client.take(mine["task_id"], "me")
    client.answer = mine
    assert client.get_work(worker="me") == mine
    other = offer(tmp_path / "other")
    for wrong, words in (
            ({"task_module": "antigravity"}, "that no helper takes"),
            ({"task_family": "TrainModel"}, "that no helper takes"),
            ({"task_params": other["task_params"]}, "as another task"),
            (other, "has not asked for")):
        client.answer = {**mine, **wrong}
        with pytest.raises(RPCError, match=words):
            client.get_work(worker="me")


def test_a_helper_sees_what_it_can_take(helper_client, tmp_path):
    params = {"working_folder": str(tmp_path), "settings_digest": "0" * 16}
    helper_client.answer = {
        "mine": {"name": "EncodePart", "params": params},
        "not of a part": {"name": "SplitCorpus", "params": params},
        "of another folder": {"name": "EncodePart", "params": {
            **params, "working_folder": "/elsewhere"}},
        "of a run without settings": {"name": "EncodePart", "params": {
            **params, "settings_digest": ""}}}
    assert list(helper_client.offered()) == ["mine"]


@pytest.fixture
def kept_settings():
    yield
    settings._taken = None
    settings._values.cache_clear()


def test_settings_travel_by_their_digest(tmp_path, kept_settings):
    formats = {"tokens": 1}
    usual = settings.in_force()
    digest = job_settings.publish_settings(tmp_path, formats)
    settings.take({**usual, "tokens": {"split": "spaces", "lowercase": False}})
    other = job_settings.publish_settings(tmp_path, formats)
    assert other != digest
    job_settings.take_settings(tmp_path, digest, formats)
    assert settings.in_force() == usual
    job_settings.take_settings(tmp_path, other, formats)
    assert settings.values(settings.tokens) == {"split": "spaces", "lowercase": False}
    with pytest.raises(UserError, match=r"another program .*formats: tokens is 2, was 1"):
        job_settings.take_settings(tmp_path, digest, {"tokens": 2})
    with pytest.raises(UserError, match="Is .* the folder that the run works in"):
        job_settings.take_settings(tmp_path, "f" * 16, formats)
    file = tmp_path / "settings" / f"{digest}.json"
    file.write_text(file.read_text().replace("true", "false"))
    with pytest.raises(UserError, match="does not hold the settings of its digest"):
        job_settings.take_settings(tmp_path, digest, formats)


def test_a_client_waits_for_a_luigid_that_others_care_for(monkeypatch, capsys):
    monkeypatch.setattr(daemon, "_SECONDS_BETWEEN", 0.01)
    answers = [RPCError("refused"), RPCError("refused"), {"paused": False}]

    def request(self, *_):
        answer = answers.pop(0)
        if isinstance(answer, RPCError):
            raise answer
        return answer

    monkeypatch.setattr(daemon.RemoteScheduler, "_request", request)
    client = daemon.PatientClient("http://10.0.0.1:8082")
    assert client.is_paused() == {"paused": False}
    assert capsys.readouterr().err.count("does not answer") == 1
    # What a stage says of its progress must not hold it up.
    answers[:] = [RPCError("refused")]
    found = []

    def ask():
        try:
            client.is_paused()
        except RPCError as error:
            found.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(10)
    assert found
    # The daemon of this host's runs is theirs to start.
    answers[:] = [RPCError("refused")]
    with pytest.raises(RPCError, match="no answer"):
        daemon.Client(daemon.url(8082)).is_paused()


def test_nothing_of_a_helper_is_left(alone, shared):
    with helping(shared) as helper:
        wait_until(lambda: "helping" in helper.told())
        helper.terminate()
        helper.wait(timeout=10)
        assert not children(helper.pid)
