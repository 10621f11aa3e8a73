"""The Luigi daemon: started where none answers, on the loopback address only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from model.files import UserError, publish

ADDRESS = "127.0.0.1"
_SECONDS_TO_START = 30
_SECONDS_TO_STOP = 10

_without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def url(port: int) -> str:
    """Where the visualiser is."""
    return f"http://{ADDRESS}:{port}"


def answers(port: int) -> bool:
    """Whether a Luigi daemon listens on the port."""
    try:
        with _without_proxy.open(f"{url(port)}/api/is_paused", timeout=5) as answer:
            return "paused" in json.load(answer)["response"]
    except (OSError, ValueError, KeyError):
        return False


def start(work: Path, port: int) -> bool:
    """Start the daemon, unless one answers.

    Parameters
    ----------
    work : path
        Working folder; the daemon's state, log and process number go to ``luigid`` in it.
    port : int

    Returns
    -------
    bool
        Whether one was started.

    Raises
    ------
    UserError
        When it does not come up.
    """
    if answers(port):
        return False
    folder = work / "luigid"
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state.pickle"
    # Luigi keeps its state as a pickle, and loading one can execute anything. What is complete is
    # read from the artifacts, so the daemon starts without it and nothing is lost.
    state.unlink(missing_ok=True)
    with open(folder / "luigid.log", "a") as log:
        process = subprocess.Popen(
            # With the settings as they are read here, not as Luigi reads them.
            [sys.executable, "-c",
             "import pipeline.settings; from luigi.cmdline import luigid; luigid()",
             "--address", ADDRESS, "--port", str(port), "--state-path", str(state)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    with publish(folder / "pid") as temporary:
        temporary.write_text(f"{process.pid}\n")
    deadline = time.monotonic() + _SECONDS_TO_START
    while not answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise UserError(
                f"luigid did not start on {ADDRESS}:{port}; see {folder / 'luigid.log'}. If "
                "another program uses the port, choose another as [run] port in luigi.cfg, or "
                "run with SCHEDULER=local")
        time.sleep(0.1)
    return True


def give_up_dead_tasks(work: Path, port: int) -> None:
    """Tell the daemon which tasks of a working folder run no more, because their worker is gone.

    It would notice after minutes only, and until then give them to no other worker. To be called
    while no run is at work in the folder.
    """
    from luigi.rpc import RemoteScheduler

    scheduler: Any = RemoteScheduler(url(port))
    for task_id, task in scheduler.task_list("RUNNING", "", limit=False).items():
        # The extraction of the default corpus has no working folder, and does no harm twice.
        if task["params"].get("working_folder", str(work)) == str(work):
            scheduler.add_task(task_id=task_id, worker=task["worker_running"], status="FAILED",
                               expl=json.dumps("its worker is gone"))


def stop(work: Path, port: int) -> str:
    """Stop the daemon that was started from a working folder.

    Returns
    -------
    str
        What was done, for the person who asked.

    Raises
    ------
    UserError
        When it does not stop.
    """
    file = work / "luigid" / "pid"
    process = int(file.read_text()) if file.exists() else None
    if process is None or not _is_luigid(process):
        if answers(port):
            return (f"a daemon answers on {url(port)}, but it was not started from {work}; "
                    "stop it where it was started")
        return "no daemon is running"
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + _SECONDS_TO_STOP
    while _is_luigid(process):
        if time.monotonic() > deadline:
            raise UserError(f"luigid (process {process}) does not stop; end it by hand")
        time.sleep(0.1)
    file.unlink()
    return "the daemon has stopped"


def _is_luigid(process: int) -> bool:
    """Whether a process is alive and a luigid, and not another that was given its number."""
    try:
        return b"luigid" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
