"""The Luigi daemon: started where none answers, on the loopback address only."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from luigi.rpc import RemoteScheduler, RPCError

from model.system.errors import UserError
from model.system.files import publish

ADDRESS = "127.0.0.1"
_LOG = "luigid.log"
_LOG_BYTES = 10 << 20
_SECONDS_TO_ANSWER = 5
_LONGEST_ANSWER = 1 << 16
_SECONDS_TO_START = 30
_SECONDS_TO_STOP = 10
_OTHER_WAYS = "choose another [run] port in luigi.cfg, or run with SCHEDULER=local"

_without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def url(port: int) -> str:
    """Where the visualiser is."""
    return f"http://{ADDRESS}:{port}"


def answers(port: int) -> bool:
    """Whether a Luigi daemon listens on the port."""
    return _paused(port) is not None


def is_paused(port: int) -> bool:
    """Whether a Luigi daemon listens on the port and gives out no tasks, as it was told to."""
    return _paused(port) is True


def _paused(port: int) -> bool | None:
    """What the daemon says of itself; None where it is no daemon of Luigi's that answers."""
    found: list[bool] = []

    def ask() -> None:
        # Another program on the port may say anything, or nothing, or never come to an end.
        with contextlib.suppress(Exception), _without_proxy.open(
                f"{url(port)}/api/is_paused", timeout=_SECONDS_TO_ANSWER) as answer:
            paused = json.loads(answer.read(_LONGEST_ANSWER))["response"]["paused"]
            if isinstance(paused, bool):
                found.append(paused)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_SECONDS_TO_ANSWER)
    return found[0] if found else None


def _is_taken(port: int) -> bool:
    """Whether any program listens on the port."""
    try:
        socket.create_connection((ADDRESS, port), timeout=_SECONDS_TO_ANSWER).close()
    except OSError:
        return False
    return True


class Client(RemoteScheduler):
    """Luigi's own client of the daemon, where the daemon may be anything.

    Any answer that is not the daemon's is an `RPCError`. And only tasks that were given to the
    daemon by this process are taken from it: Luigi would import whatever module it names, and the
    daemon believes everybody who reaches its port.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._rpc_log_retries = False  # with tracebacks, where no log has been set up
        self._own: set[str] = set()

    def _request(self, url: str, data: dict, attempts: int = 3, allow_null: bool = True) -> Any:
        try:
            return super()._request(url, data, attempts, allow_null)
        except RPCError as error:
            raise RPCError(f"no answer ({error.sub_exception or error})", error) from error
        except Exception as error:
            raise RPCError(f"not the answer of a daemon of this version ({error!r})",
                           error) from error

    def add_task(self, **options: Any) -> Any:
        """Give a task to the daemon, or tell it what has become of one."""
        self._own.add(options["task_id"])
        return super().add_task(**options)  # type: ignore[misc]

    def get_work(self, **options: Any) -> dict:
        """Ask for a task."""
        work = super().get_work(**options)  # type: ignore[misc]
        known = ("task_id", "running_tasks", "n_pending_tasks", "n_unique_pending")
        if not isinstance(work, dict) or any(name not in work for name in known):
            raise RPCError(f"not the answer of a daemon of this version ({str(work)[:100]!r})")
        if "batch_id" in work or (work["task_id"] or "") not in {"", *self._own}:
            raise RPCError("it gives out a task that this run has not asked for, "
                           f"{str(work['task_id'])[:100]!r}")
        return work

    def ping(self, **options: Any) -> dict | None:
        """Tell the daemon that this process is alive."""
        answer = super().ping(**options)  # type: ignore[misc]
        return answer if isinstance(answer, dict) and "rpc_messages" in answer else None


@contextlib.contextmanager
def talking_to(port: int) -> Iterator[Any]:
    """A client of the daemon.

    Raises
    ------
    UserError
        When what answers is not the daemon of this version of Luigi.
    """
    try:
        yield Client(url(port))
    except (RPCError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"what answers on {url(port)} is not the daemon of this version of Luigi, or no more: "
            f"{error if isinstance(error, RPCError) else repr(error)}. End it, or "
            f"{_OTHER_WAYS}") from error


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
        When it does not come up, or another program has the port.
    """
    if answers(port):
        return False
    if _is_taken(port):
        raise UserError(f"what listens on {ADDRESS}:{port} does not answer as Luigi's daemon does; "
                        f"{_OTHER_WAYS}")
    folder = work / "luigid"
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state.pickle"
    # Luigi keeps its state as a pickle, and loading one can execute anything. What is complete is
    # read from the artifacts, so the daemon starts without it and nothing is lost.
    state.unlink(missing_ok=True)
    with open(folder / _LOG, "a") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from pipeline.daemon import be_luigid; be_luigid()",
             "--address", ADDRESS, "--port", str(port), "--state-path", str(state)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    with publish(folder / "pid") as temporary:
        temporary.write_text(f"{process.pid}\n")
    deadline = time.monotonic() + _SECONDS_TO_START
    while not answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise UserError(
                f"luigid did not start on {ADDRESS}:{port}; see {folder / _LOG}. If "
                f"another program uses the port, {_OTHER_WAYS}")
        time.sleep(0.1)
    return True


def be_luigid() -> None:
    """Be the daemon, with the arguments of luigid, until told to stop."""
    import luigi.cmdline

    # With the settings as they are read there, not as Luigi reads them.
    import pipeline.settings  # noqa: F401

    state = Path(sys.argv[sys.argv.index("--state-path") + 1])
    log = RotatingFileHandler(state.with_name(_LOG), maxBytes=_LOG_BYTES, backupCount=1)
    logging.basicConfig(level=logging.INFO, handlers=[log],
                        format="%(asctime)s %(name)s %(levelname)s: %(message)s")
    # Each worker asks ten times a second; what fails is still told.
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    luigi.cmdline.luigid(sys.argv[1:])


def give_up_dead_tasks(work: Path, port: int) -> None:
    """Tell the daemon which tasks of a working folder run no more, because their worker is gone.

    It would notice after minutes only, and until then give them to no other worker. To be called
    while no run is at work in the folder.
    """
    with talking_to(port) as client:
        for task_id, task in client.task_list("RUNNING", "", limit=False).items():
            # The extraction of the default corpus has no working folder, and does no harm twice.
            if task["params"].get("working_folder", str(work)) == str(work):
                client.add_task(task_id=task_id, worker=task["worker_running"], status="FAILED",
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
    process = _number_in(file)
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


def _number_in(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # there is none, or it is garbled
        return None


def _is_luigid(process: int) -> bool:
    """Whether a process is alive and a luigid, and not another that was given its number."""
    try:
        return b"luigid" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
