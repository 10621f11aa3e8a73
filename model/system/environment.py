"""What of the environment that a command is started in reaches the job: one place for all of it.

Python, Theano, matplotlib, Luigi, OpenMP, BLAS, tqdm, the compiler and others each obey variables,
and files in the home folder, that a user has set for something else. So a command starts itself
again, before it imports any of them, with the variables that are named here and no others; and it
does so from the folder that ``.venv`` is a link to, because the link may come to name another while
the job runs. Processes that the command starts inherit all of it.

With ``PIPELINE_ENVIRONMENT=keep`` nothing is changed: for tests and for debugging.

Where the project is installed as a package, ``lstm_model``, the folder of that holds ``model``,
``pipeline`` and ``luigi.cfg`` as a checkout does. The first two are names that others have, too;
only the processes of the commands know them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

# Or the folder of the installed package.
CHECKOUT = Path(__file__).resolve().parents[2]

# Who and where the user is, how programs are found and loaded on this machine, and how the network
# is reached: what cron, sudo or systemd would give.
_KEPT = {
    "HOME", "LOGNAME", "USER", "PATH", "TERM", "TMPDIR", "TZ",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
    # Settings of the job besides luigi.cfg: documented in docs/nightly.md.
    "LUIGI_CONFIG_PATH",
    # Says what the processor is where OpenBLAS cannot tell, or computes wrongly.
    "OPENBLAS_CORETYPE",
}
# LD_: of the system's loader, without which nothing may run. PIPELINE_: our own. And what MPI's
# launchers and Slurm tell the processes that they start, and what says which network they take.
_KEPT_PREFIXES = (
    "LD_", "PIPELINE_",
    "PMI", "HYD", "MPI", "I_MPI_", "OMPI_", "PRTE_", "SLURM", "UCX_", "FI_")

# The process that has started itself again already.
_MARK = "PIPELINE_STARTED"


# For Python 3.10, which does not know PYTHONSAFEPATH: as -m, but for the current folder.
_RUN_MODULE = ("import runpy, sys; del sys.path[0], sys.argv[0]; "
               "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)")


def is_checkout() -> bool:
    """Whether this is a checkout of the project, and not an installed package."""
    return (CHECKOUT / "pyproject.toml").is_file()


def base_folder() -> Path:
    """Where relative names in the settings start: the checkout, or else the current folder."""
    return CHECKOUT if is_checkout() else Path.cwd()


def module_command(module: str) -> list[str]:
    """The beginning of a command line that runs a module of the project with this Python."""
    if sys.version_info < (3, 11) and not is_checkout():
        return [sys.executable, "-c", _RUN_MODULE, module]
    return [sys.executable, "-m", module]


def start(module: str) -> NoReturn:
    """Become ``python -m module``: what the commands of the installed package do."""
    if is_kept():
        folders = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONSAFEPATH": "1"}
    else:
        variables = {**for_job(os.environ), _MARK: str(os.getpid())}
    command = module_command(module)
    os.execve(command[0], [*command, *sys.argv[1:]], variables)


def is_kept() -> bool:
    """Whether this process is to take its environment as it is."""
    return os.environ.get("PIPELINE_ENVIRONMENT") == "keep"


def isolate(module: str) -> None:
    """Go on as ``python -m module`` in the environment of the job, unless this process is in it.

    To be called before anything else is imported. Does not return where the process is to start
    again; its number stays.
    """
    if is_kept():
        return
    wanted = for_job(os.environ)
    here = {name: value for name, value in os.environ.items() if name != _MARK}
    # Not the link .venv, which may come to name another environment.
    python = os.path.join(os.path.realpath(sys.prefix), "bin", "python")
    if not os.path.exists(python):  # no virtual environment, and a Python of another name
        python = sys.executable
    flags = sys.flags
    if os.environ.get(_MARK) != str(os.getpid()) and (
            here != wanted or sys.executable != python or not flags.utf8_mode
            or flags.optimize or flags.ignore_environment):
        os.execve(python, [python, "-m", module, *sys.argv[1:]],
                  {**wanted, _MARK: str(os.getpid())})
    # Python 3.10 does not know PYTHONSAFEPATH: the current folder comes before all others.
    if sys.path[0] != str(CHECKOUT):
        sys.path[0] = str(CHECKOUT)


def for_job(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of the job's processes, of those that a command was started with.

    Parameters
    ----------
    environment : mapping
        Names to values.

    Returns
    -------
    dict
        The same again for what is returned.
    """
    kept = {name: value for name, value in environment.items()
            if name in _KEPT or name.startswith(_KEPT_PREFIXES) and name != _MARK}
    kept.setdefault("HOME", "/")
    kept.setdefault("PATH", os.defpath)
    work = work_folder(kept)
    return {
        **kept,
        "PIPELINE_WORK": work,
        # Messages of the system and of the compiler in one language, and UTF-8 for all text.
        "LC_ALL": "C.UTF-8",
        "PYTHONUTF8": "1",
        # This checkout's modules, wherever the command is called, and no others that lie there.
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        # No settings of the user's; what matplotlib knows of the fonts stays with the job.
        "MATPLOTLIBRC": os.devnull,
        "MPLCONFIGDIR": os.path.join(work, "matplotlib"),
    }


def work_folder(environment: Mapping[str, str] = os.environ) -> str:
    """The working folder in full: ``PIPELINE_WORK``, or ``data/work`` of the `base_folder`."""
    named = environment.get("PIPELINE_WORK")
    return os.path.abspath(os.path.expanduser(named) if named else base_folder() / "data" / "work")


def use_work_folder(path: str) -> None:
    """Let this process, and those it starts, work in a folder; ``~`` is the home folder."""
    os.environ["PIPELINE_WORK"] = path
    os.environ["PIPELINE_WORK"] = work = work_folder()
    if not is_kept():
        os.environ["MPLCONFIGDIR"] = os.path.join(work, "matplotlib")
