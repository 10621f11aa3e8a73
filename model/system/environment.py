"""What of the environment that a command is started in reaches the job: one place for all of it.

Python, Theano, matplotlib, Luigi, OpenMP, BLAS, tqdm, the compiler and others each obey variables,
and files in the home folder, that a user has set for something else. So a command starts itself
again, before it imports any of them, with the variables that are named here and no others; and it
does so from the folder that ``.venv`` is a link to, because the link may come to name another while
the job runs. Processes that the command starts inherit all of it.

With ``PIPELINE_ENVIRONMENT=keep`` nothing is changed: for tests and for debugging.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

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
    """The working folder in full: ``PIPELINE_WORK``, or ``data/work`` of the checkout."""
    named = environment.get("PIPELINE_WORK")
    return os.path.abspath(os.path.expanduser(named) if named else CHECKOUT / "data" / "work")


def use_work_folder(path: str) -> None:
    """Let this process, and those it starts, work in a folder; ``~`` is the home folder."""
    os.environ["PIPELINE_WORK"] = path
    os.environ["PIPELINE_WORK"] = work = work_folder()
    if not is_kept():
        os.environ["MPLCONFIGDIR"] = os.path.join(work, "matplotlib")
