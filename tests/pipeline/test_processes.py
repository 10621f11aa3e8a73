"""A job whose network is trained by several processes, and what is left where one is lost."""

import shutil

import pytest

from pipeline.model_process import Launch
from tests.jobs import results
from tests.pipeline.kills import kill_in, killed_job

pytestmark = pytest.mark.extras


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A job that one process has done, and what it has made."""
    pytest.importorskip("mpi4py", reason="MPI is not there; make test-extras installs it")
    job = killed_job(tmp_path_factory.mktemp("processes"), epochs=6)
    job.run_local()
    return job, results(job.work)


@pytest.fixture
def untrained(job):
    """The same job before its training."""
    job, expected = job
    done, job.work = job.work, job.work.with_name("untrained")
    shutil.copytree(done, job.work, symlinks=True)
    for name in ("models", "report"):
        shutil.rmtree(job.work / name)
    (job.work / "history.jsonl").unlink()
    yield job, expected
    shutil.rmtree(job.work)
    job.work = done


def test_a_job_of_two_processes_has_the_results_of_one(untrained):
    job, expected = untrained
    job.set("run", processes=2)
    job.run_local()
    assert results(job.work) == expected
    assert [row["rank"] for row in job.metrics()["train"]["processes"]] == [0, 1]
    page = (job.work / "report" / "index.html").read_text()
    assert "Processes of the training" in page
    job.settings["run"].pop("processes")


@pytest.mark.parametrize("victim, line", [
    ("rank", "has lost one of its 2 processes: it was ended by SIGKILL"),
    ("launcher", "has lost the launcher of its processes, which was ended by SIGKILL"),
    ("task", ""), ("luigi", "")])  # who would tell it is gone
def test_a_kill_is_named_leaves_nothing_and_the_next_run_goes_on(untrained, victim, line):
    job, expected = untrained
    output, _ = kill_in(job, victim, 2, after=5)
    assert line in output
    job.run_local()
    assert results(job.work) == expected


def test_a_number_of_processes_that_cannot_be_is_refused_before_anything(untrained):
    job, _ = untrained
    code, output = job.run("run", "--scheduler", "local", "--processes", "3")
    assert code == 65
    assert output.startswith("error: [run] processes = 3: it must divide [training] slots, which")
    assert len(output.splitlines()) == 1


def test_a_launcher_that_there_is_not_is_refused_before_anything(untrained):
    job, _ = untrained
    job.set("run", launcher="no-mpiexec -n {processes}")
    code, output = job.run("run", "--scheduler", "local", "--processes", "2")
    job.settings["run"].pop("launcher")
    assert code and "[run] launcher = no-mpiexec -n {processes}: there is no program" in output


def test_the_words_of_a_launcher():
    launch = Launch("sh '-c -n {processes}' --hosts a,b", 4, 1.0)
    program, *others = launch.words()
    assert program.endswith("/sh") and others == ["-c -n 4", "--hosts", "a,b"]
