"""What of a user's environment and home folder reaches the job: nothing that could change it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.system import environment
from tests.jobs import REPOSITORY, Job, results


def test_the_variables_of_the_job_are_those_that_are_named():
    given = {"HOME": "/home/me", "PATH": "/bin", "https_proxy": "http://proxy", "TZ": "UTC",
             "LD_LIBRARY_PATH": "/opt/lib", "PIPELINE_PASSWORD": "secret",
             "LUIGI_CONFIG_PATH": "my.cfg", "OPENBLAS_CORETYPE": "Haswell",
             # Without these each process of a training takes itself for the only one.
             "PMI_RANK": "1", "OMPI_COMM_WORLD_RANK": "1", "SLURM_PROCID": "1", "UCX_TLS": "tcp"}
    hostile = dict.fromkeys(
        ["THEANO_FLAGS", "PYTHONHOME", "MPLBACKEND", "OMP_NUM_THREADS", "CPATH", "LC_ALL",
         "TQDM_DISABLE", "LUIGI_CONFIG_PARSER", "POLARS_MAX_THREADS", "anything else"], "user's")
    found = environment.for_job({**given, **hostile})
    assert found.items() >= given.items()
    assert "user's" not in found.values()
    assert environment.for_job(found) == found


@pytest.mark.parametrize("named, folder", [
    ("/data/a b", "/data/a b"), ("~/x", "/home/me/x"), ("", f"{REPOSITORY}/data/work"),
    ("here", f"{os.getcwd()}/here")])
def test_the_working_folder_is_named_in_full(monkeypatch, named, folder):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PIPELINE_WORK", named)
    assert environment.work_folder() == folder
    environment.use_work_folder(named)
    assert os.environ["PIPELINE_WORK"] == folder


def test_without_any_variable_there_are_those_that_programs_need():
    found = environment.for_job({})
    assert found["HOME"] == "/" and shutil.which("env", path=found["PATH"])


class Started(Exception):
    """Instead of another program in this process."""


@pytest.fixture
def process(monkeypatch):
    """This process as one that a user has started: ``python -m pipeline why``."""
    def start(*arguments):
        raise Started(*arguments)

    monkeypatch.setattr(os, "execve", start)
    monkeypatch.setattr(sys, "argv", ["-m", "why", "--work", "a b"])
    monkeypatch.setattr(sys, "path", ["/home/me", *sys.path])
    monkeypatch.delenv("PIPELINE_ENVIRONMENT")
    return monkeypatch


def test_a_command_starts_itself_again_without_what_is_the_users(process):
    process.setenv("THEANO_FLAGS", "floatX=float64")
    with pytest.raises(Started) as started:
        environment.isolate("pipeline")
    program, arguments, variables = started.value.args
    assert program == os.path.join(os.path.realpath(sys.prefix), "bin", "python")
    assert arguments == [program, "-m", "pipeline", "why", "--work", "a b"]
    assert variables.pop("PIPELINE_STARTED") == str(os.getpid())
    assert variables == environment.for_job(os.environ) and "THEANO_FLAGS" not in variables


def test_it_does_so_once_and_leaves_the_current_folder_out(process):
    process.setenv("PIPELINE_STARTED", str(os.getpid()))
    environment.isolate("pipeline")
    assert sys.path[0] == str(REPOSITORY)
    # A process that this one starts has another number.
    process.setenv("PIPELINE_STARTED", "1")
    with pytest.raises(Started):
        environment.isolate("pipeline")


def test_tests_may_keep_their_environment(process):
    process.setenv("PIPELINE_ENVIRONMENT", "keep")
    environment.isolate("pipeline")


HOSTILE_HOME = {
    ".theanorc": "[global]\nfloatX = float64\ndevice = cuda\n[nonsense\n",
    ".config/matplotlib/matplotlibrc": "backend: module://nothing\nlines.linewidth: thick\n",
    ".config/luigi/luigi.cfg": "[training]\nmax_epochs = 100\n",
    ".pythonrc": "raise SystemExit('spoilt')\n",
    ".bashrc": "exit 1\n",
}
# Modules that are found before the right ones where PYTHONPATH, or the user's own site, is heard.
SHADOWED = ("luigi", "json", "numpy", "sitecustomize", "usercustomize", "theano", "argparse")


@pytest.fixture
def hostile(tmp_path):
    """An environment in which everything is set that could go wrong."""
    home = tmp_path / "home"
    for name, content in HOSTILE_HOME.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content)
    minor = "{}.{}".format(*sys.version_info)
    site = home / ".local" / "lib" / f"python{minor}" / "site-packages"
    shadows = tmp_path / "shadows"
    for folder in (site, shadows):
        folder.mkdir(parents=True)
        for name in SHADOWED:
            (folder / f"{name}.py").write_text(f"raise ImportError('the wrong {name}')\n")
    nothing = str(tmp_path / "nothing")
    return {
        "PATH": os.environ["PATH"], "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"),
        "TMPDIR": nothing, "LANG": "C", "LC_ALL": "C", "LANGUAGE": "de", "TERM": "dumb",
        # Python
        "PYTHONPATH": str(shadows), "PYTHONHOME": nothing, "PYTHONUSERBASE": str(home / ".local"),
        "PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "7", "PYTHONWARNINGS": "error", "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:strict", "PYTHONINSPECT": "1",
        "PYTHONSTARTUP": str(home / ".pythonrc"), "PYTHONDEVMODE": "1", "PYTHONSAFEPATH": "",
        "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": nothing, "PYTHONPROFILEIMPORTTIME":
        "1", "PYTHONDEBUG": "1", "PYTHONVERBOSE": "", "PYTHONINTMAXSTRDIGITS": "640",
        "SETUPTOOLS_USE_DISTUTILS": "stdlib",
        # What computes
        "THEANO_FLAGS": "floatX=float64,device=cuda,nonsense=1", "THEANORC": "~/.theanorc",
        "CUDA_ROOT": nothing, "OMP_NUM_THREADS": "many", "OMP_SCHEDULE": "nonsense",
        "OMP_STACKSIZE": "1", "GOMP_CPU_AFFINITY": "nonsense", "OPENBLAS_NUM_THREADS": "-3",
        "GOTO_NUM_THREADS": "x", "MKL_NUM_THREADS": "0", "MKL_THREADING_LAYER": "NONSENSE",
        "NPY_DISABLE_CPU_FEATURES": "nonsense", "NUMPY_EXPERIMENTAL_ARRAY_FUNCTION": "0",
        "NUMEXPR_MAX_THREADS": "x", "POLARS_MAX_THREADS": "many", "RAYON_NUM_THREADS": "x",
        "POLARS_VERBOSE": "1", "HDF5_USE_FILE_LOCKING": "nonsense", "HDF5_DISABLE_VERSION_CHECK":
        "2", "HDF5_PLUGIN_PATH": nothing, "HDF5_DRIVER": "nonsense", "MALLOC_CHECK_": "3",
        # The compiler
        "CXX": "false", "CC": "false", "CXXFLAGS": "-nonsense", "CFLAGS": "-nonsense",
        "LDFLAGS": "-nonsense", "CPATH": str(shadows), "CPLUS_INCLUDE_PATH": str(shadows),
        "LIBRARY_PATH": nothing, "GCC_EXEC_PREFIX": nothing, "COMPILER_PATH": nothing,
        "DEPENDENCIES_OUTPUT": nothing, "SUNPRO_DEPENDENCIES": nothing, "GCC_COMPARE_DEBUG": "1",
        # The rest
        "MPLBACKEND": "module://nothing", "MATPLOTLIBRC": str(home / ".config/matplotlib"),
        "MPLCONFIGDIR": nothing, "LUIGI_CONFIG_PARSER": "toml", "TQDM_NCOLS": "wide",
        "TQDM_DISABLE": "perhaps", "COLUMNS": "-1", "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9", "all_proxy": "nonsense://", "no_proxy": "",
        "LD_PRELOAD": "", "MAKEFLAGS": "-j3", "MAKELEVEL": "0", "GREP_OPTIONS": "-v", "CDPATH": "/",
        "BASH_ENV": str(home / ".bashrc"), "ENV": str(home / ".bashrc"), "SHELLOPTS": "noexec",
        "POSIXLY_CORRECT": "1", "IFS": "/", "WORK": nothing, "CORPUS": nothing, "PROFILE": "none",
    }


def run_whole(job, cache, settings, variables, mask=None):
    """A whole job as ``make run`` starts it, with the tests' compile cache; what it printed."""
    job.work.mkdir()
    cache.mkdir(parents=True, exist_ok=True)
    (job.work / "theano").symlink_to(cache)
    done = subprocess.run(
        [sys.executable, "-E", "-m", "pipeline", "run", "--work", str(job.work),
         "--scheduler", "local"], cwd=REPOSITORY, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, umask=-1 if mask is None else mask,
        env={**variables, "LUIGI_CONFIG_PATH": settings})
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_job_in_the_most_hostile_environment_makes_the_same_bytes(tmp_path, hostile):
    job = Job(tmp_path / "job", train=100)
    settings = job.environment()["LUIGI_CONFIG_PATH"]
    cache = Path(os.environ["PIPELINE_WORK"]).resolve() / "theano"
    run_whole(job, cache, settings, {"PATH": os.environ["PATH"]})
    expected, work = results(job.work), job.work.rename(tmp_path / "expected")
    page = (work / "report" / "index.html").read_text()
    output = run_whole(job, cache, settings, hostile, mask=0o077)
    assert results(job.work) == expected
    assert "Traceback" not in output and "arning" not in output
    found = (job.work / "report" / "index.html").read_text()
    assert found.count("<svg") == page.count("<svg") > 3
    assert not (tmp_path / "nothing").exists()
