"""The Makefile, in a checkout of its own where set-up and Python only say what they were given."""

import os
import shutil
import subprocess

import pytest

from tests.jobs import REPOSITORY

SAY = r'''#!/bin/bash -p
printf '%s|' "{}" "$@"
echo
env -0 | tr '\0' '\n' >environment
'''


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "a check'out"
    real = folder / ".venvs" / "real" / "bin"
    real.mkdir(parents=True)
    shutil.copy(REPOSITORY / "Makefile", folder)
    for path, name in ((folder / "setup.sh", "setup"), (real / "python", "$0")):
        path.write_text(SAY.format(name))
        path.chmod(0o755)
    (folder / ".venv").symlink_to(".venvs/real")
    return folder


def make(folder, *arguments, **environment):
    """Exit code and output of make; the environment is nearly empty, as cron's."""
    done = subprocess.run(
        ["make", "-C", str(folder), "--no-print-directory", *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, env={"PATH": os.environ["PATH"], **environment})
    return done.returncode, done.stdout


def test_a_job_runs_from_the_folder_behind_the_link(checkout):
    code, output = make(checkout, "run")
    assert code == 0
    assert output.splitlines() == [
        "setup|", f"{checkout}/.venvs/real/bin/python|-E|-m|pipeline|run|--work|data/work|"]


@pytest.mark.parametrize("target", ["status", "why", "stop", "gc"])
def test_what_only_looks_installs_nothing(checkout, target):
    code, output = make(checkout, target)
    assert code == 0 and "setup|" not in output and f"|{target}|" in output
    (checkout / ".venv").unlink()
    code, output = make(checkout, target)
    assert code == 2
    assert output.splitlines()[0] == "There is no environment yet: make setup"


def test_names_stay_whole(checkout):
    name = """a $b $(c) ${d} $$ 'e' "f" #g, `h` ~"""
    code, output = make(checkout, "run", f"CORPUS={name}", f"WORK={name}", f"VALID={name}")
    assert code == 0
    assert output.splitlines()[-1].endswith(
        f"|run|--corpus|{name}|--valid|{name}|--work|{name}|")
    assert f"PIPELINE_WORK={name}\n" in (checkout / "environment").read_text()


def test_settings_reach_every_command_as_they_are(checkout):
    given = "training.rate=0.002 corpus.path=a  'b' $x"
    for target in ("run", "worker", "why", "plan", "settings", "report", "gc", "history", "status",
                   "stop"):
        code, output = make(checkout, target, f"SET={given}")
        assert code == 0
        assert f"|pipeline|{target}|--set|{given}|" in output.splitlines()[-1]
    assert make(checkout, "run", "SET=training.seed=1 run.device=cuda")[1].startswith(
        "setup|torch|")


def test_nothing_is_taken_from_the_environment(checkout):
    names = ("CORPUS", "VALID", "TEST", "WORK", "PROFILE", "SET", "DEVICE", "PROCESSES",
             "SCHEDULER", "WORKERS", "PYTHON", "pipeline", "python", "inputs", "setup", "given",
             "set_to", "torch", "mpi")
    _, expected = make(checkout, "run")
    assert make(checkout, "run", **dict.fromkeys(names, "of the user")) == (0, expected)


def test_python_can_be_named(checkout):
    _, output = make(checkout, "bench", "PYTHON=a python")
    assert output.splitlines()[0] == "setup|--python|a python|torch|mpi|"


def test_a_device_other_than_the_processor_installs_pytorch(checkout):
    _, output = make(checkout, "run", "DEVICE=cuda:1")
    set_up, run = output.splitlines()
    assert set_up == "setup|torch|" and run.endswith("|--device|cuda:1|")
    assert make(checkout, "run", "DEVICE=cpu")[1].splitlines()[0] == "setup|"
    shutil.copy(REPOSITORY / "luigi.cfg", checkout)
    assert make(checkout, "run")[1].splitlines()[0] == "setup|"
    settings = (checkout / "luigi.cfg").read_text().replace("device = cpu", "device = torch-cpu")
    (checkout / "luigi.cfg").write_text(settings)
    assert make(checkout, "run")[1].splitlines()[0] == "setup|torch|"
    assert make(checkout, "run", "DEVICE=cpu")[1].splitlines()[0] == "setup|"


def test_several_processes_install_mpi(checkout):
    set_up, run = make(checkout, "run", "PROCESSES=4")[1].splitlines()
    assert set_up == "setup|mpi|" and run.endswith("|--processes|4|")
    assert make(checkout, "run", "PROCESSES=1")[1].splitlines()[0] == "setup|"
    settings = (REPOSITORY / "luigi.cfg").read_text()
    assert "\nprocesses = 1\n" in settings
    (checkout / "luigi.cfg").write_text(settings.replace("\nprocesses = 1\n", "\nprocesses = 2\n"))
    assert make(checkout, "run")[1].splitlines()[0] == "setup|mpi|"
    assert make(checkout, "run", "PROCESSES=1")[1].splitlines()[0] == "setup|"


@pytest.mark.parametrize("target, wanted", [
    ("test", "-m|not extras and not card|"), ("test-extras", "-m|extras and not card|"),
    ("test-card", "tests/model/test_updater.py|")])
def test_which_tests_a_target_runs(checkout, target, wanted):
    code, output = make(checkout, target)
    assert code == 0 and output.splitlines()[-1].endswith(wanted)


def test_what_bash_reads_by_itself_is_not_obeyed(checkout, tmp_path):
    spoil = tmp_path / "spoil"
    spoil.write_text("echo spoilt; exit 0\n")
    _, expected = make(checkout, "run")
    hostile = {"BASH_ENV": str(spoil), "ENV": str(spoil), "CDPATH": "/", "SHELL": "/bin/false",
               "BASH_FUNC_readlink%%": "() { echo spoilt; }", "SHELLOPTS": "noexec"}
    assert make(checkout, "run", **hostile) == (0, expected)


@pytest.mark.parametrize("name, value", [
    ("MAKEFLAGS", "n"), ("MAKEFLAGS", "-i"), ("MAKEFLAGS", "--just-print"), ("GNUMAKEFLAGS", "-t"),
    ("MAKEFLAGS", "j2 -- WORK=/elsewhere"), ("MAKEFILES", "/dev/null")])
def test_what_changes_make_is_refused(checkout, name, value):
    code, output = make(checkout, "run", **{name: value})
    assert code == 2 and "in the environment changes what make does" in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize("flags", ["-j8", "j4", "-j 4 --no-print-directory", "s"])
def test_how_many_jobs_make_runs_is_no_matter(checkout, flags):
    assert make(checkout, "run", MAKEFLAGS=flags) == make(checkout, "run")


def test_all_pythons_that_are_found_are_tested_each_in_a_copy(checkout, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    answers = {"python3.10": "echo 3.10", "python3.11": "echo a shim that finds nothing; exit 1",
               "python3.12": "echo 3.12"}
    for name, answer in answers.items():
        (programs / name).write_text(f"#!/bin/bash\n{answer}\n")
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    (checkout / "data").mkdir()
    (checkout / "data" / "large").touch()
    for version in ("3.10", "3.12"):  # environments that were made before
        copy = checkout / "data" / "test-all" / version
        shutil.copytree(checkout / ".venvs", copy / ".venvs")
        (copy / ".venv").symlink_to(".venvs/real")
        (copy / "removed since").touch()
    home = {"HOME": str(tmp_path / "home"), "PATH": path}
    code, output = make(checkout, "test-all", **home)
    assert code == 0, output
    assert output.splitlines()[-3:] == [
        "Python 3.10: passed", "Python 3.11: not found", "Python 3.12: passed"]
    for version in ("3.10", "3.12"):
        assert f"setup|--python|python{version}|" in output
        copy = checkout / "data" / "test-all" / version
        assert not (copy / "removed since").exists() and not (copy / "data" / "large").exists()
    real = checkout / "data" / "test-all" / "3.12" / ".venvs" / "real" / "bin" / "python"
    real.write_text("#!/bin/bash\nexit 1\n")
    code, output = make(checkout, "test-all", **home)
    assert code != 0 and output.count("Python 3.12: FAILED") == 1
    for name in ("python3.10", "python3.12"):
        (programs / name).write_text("#!/bin/bash\nexit 1\n")
    code, output = make(checkout, "test-all", **home)
    assert code != 0 and output.count("not found") == 3
