"""The Luigi daemon: started where none answers, on the loopback address if on no other."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from luigi.rpc import RemoteScheduler, RPCError

from model.system.errors import UserError
from model.system.files import publish
from model.system.processes import host_name

ADDRESS = "127.0.0.1"
# How the names of workers begin that help a run which another began.
HELPER = "Helper("
_LOG = "luigid.log"
_LOG_BYTES = 10 << 20
_SECONDS_TO_ANSWER = 5
_LONGEST_ANSWER = 1 << 16
_SECONDS_TO_START = 30
_SECONDS_TO_STOP = 10
_SECONDS_BETWEEN = 2
_OTHER_WAYS = "choose another [run] port in luigi.cfg, or run with SCHEDULER=local"

_without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def url(place: int | str) -> str:
    """Where the visualiser is, of a daemon on a port of this host or with an address of its own."""
    return f"http://{ADDRESS}:{place}" if isinstance(place, int) else place


def place_of(scheduler: str, port: int) -> int | str:
    """Where the daemon is, by the settings [run] scheduler and port."""
    return scheduler if "://" in scheduler else port


def answers(place: int | str) -> bool:
    """Whether a Luigi daemon listens there."""
    return _paused(place) is not None


def is_paused(place: int | str) -> bool:
    """Whether a Luigi daemon listens there and gives out no tasks, as it was told to."""
    return _paused(place) is True


def _paused(place: int | str) -> bool | None:
    """What the daemon says of itself; None where it is no daemon of Luigi's that answers."""
    found: list[bool] = []

    def ask() -> None:
        # Another program on the port may say anything, or nothing, or never come to an end.
        with contextlib.suppress(Exception), _without_proxy.open(
                f"{url(place)}/api/is_paused", timeout=_SECONDS_TO_ANSWER) as answer:
            paused = json.loads(answer.read(_LONGEST_ANSWER))["response"]["paused"]
            if isinstance(paused, bool):
                found.append(paused)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_SECONDS_TO_ANSWER)
    return found[0] if found else None


def _is_taken(address: str, port: int) -> bool:
    """Whether any program listens there."""
    try:
        socket.create_connection((address, port), timeout=_SECONDS_TO_ANSWER).close()
    except OSError:
        return False
    return True


class Client(RemoteScheduler):
    """Luigi's own client of the daemon, where the daemon may be anything.

    Any answer that is not the daemon's is an `RPCError`. And only tasks that were given to the
    daemon by this process are taken from it: Luigi would import whatever module it names, and the
    daemon believes everybody who reaches its port.
    """

    patience_seconds = 0

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._rpc_log_retries = False  # with tracebacks, where no log has been set up
        self._own: set[str] = set()
        # What is being made does not need the daemon, so only the worker itself waits for it.
        self._patient = (os.getpid(), threading.get_ident())

    def _request(self, url: str, data: dict, attempts: int = 3, allow_null: bool = True) -> Any:
        waited_since = time.monotonic()
        told = False
        while True:
            try:
                return super()._request(url, data, attempts, allow_null)
            except RPCError as error:
                waited = time.monotonic() - waited_since
                if waited >= self.patience_seconds or self._patient != (
                        os.getpid(), threading.get_ident()):
                    raise RPCError(f"no answer ({error.sub_exception or error})", error) from error
            except Exception as error:
                raise RPCError(f"not the answer of a daemon of this version ({error!r})",
                               error) from error
            if not told:
                print(f"{self._url} does not answer; asking again for "
                      f"{self.patience_seconds / 60:.0f} minutes, while what is being made goes on",
                      file=sys.stderr, flush=True)
                told = True
            time.sleep(_SECONDS_BETWEEN)

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


class PatientClient(Client):
    """The client of a daemon that others have in their care, and may start anew: it waits for it.
    """

    patience_seconds = 600


@contextlib.contextmanager
def talking_to(place: int | str) -> Iterator[Any]:
    """A client of the daemon.

    Raises
    ------
    UserError
        When what answers is not the daemon of this version of Luigi.
    """
    try:
        yield Client(url(place))
    except (RPCError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"what answers on {url(place)} is not the daemon of this version of Luigi, or no more: "
            f"{error if isinstance(error, RPCError) else repr(error)}. End it, or "
            f"{_OTHER_WAYS}") from error


def start(work: Path, place: int | str) -> bool:
    """Start the daemon, unless one answers.

    Parameters
    ----------
    work : path
        Working folder; the daemon's state, log and process number go to ``luigid`` in it.
    place : int or str
        A port of this host's, or an address with a port, which has to be one of this host's.

    Returns
    -------
    bool
        Whether one was started.

    Raises
    ------
    UserError
        When it does not come up, or another program has the port.
    """
    if answers(place):
        return False
    parts = urllib.parse.urlsplit(url(place))
    address, port = parts.hostname or ADDRESS, parts.port
    assert port is not None
    if _is_everywhere(address):
        raise UserError(f"luigid is not started on {address}, where every network would reach it: "
                        "it does what anyone asks of it. Name this host's address in a private "
                        "network (ip address shows them)")
    if _is_taken(address, port):
        raise UserError(f"what listens on {address}:{port} does not answer as Luigi's daemon does; "
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
             "--address", address, "--port", str(port), "--state-path", str(state)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    with publish(folder / "pid") as temporary:
        # The number comes first, for people.
        temporary.write_text(f"{process.pid} {host_name()}\n")
    deadline = time.monotonic() + _SECONDS_TO_START
    while not answers(place):
        if process.poll() is not None or time.monotonic() > deadline:
            raise UserError(
                f"luigid did not start on {address}:{port}; see {folder / _LOG}. Is the address "
                f"one of this host's? If another program uses the port, {_OTHER_WAYS}")
        time.sleep(0.1)
    return True


def _is_everywhere(address: str) -> bool:
    """Whether a program that listens on an address is reached on all of the host's."""
    try:
        return ipaddress.ip_address(socket.gethostbyname(address)).is_unspecified
    except OSError:
        return False  # starting it tells what is wrong


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


def give_up_dead_tasks(work: Path, place: int | str) -> None:
    """Tell the daemon which tasks of a working folder run no more, because their worker is gone.

    It would notice after minutes only, and until then give them to no other worker. To be called
    while no run is at work in the folder; what hosts that help are at stays theirs.
    """
    with talking_to(place) as client:
        for task_id, task in client.task_list("RUNNING", "", limit=False).items():
            # The extraction of the default corpus has no working folder, and does no harm twice.
            if task["params"].get("working_folder", str(work)) == str(work) and not str(
                    task["worker_running"]).startswith(HELPER):
                client.add_task(task_id=task_id, worker=task["worker_running"], status="FAILED",
                                expl=json.dumps("its worker is gone"))


def stop(work: Path, place: int | str) -> str:
    """Stop the daemon that was started from a working folder.

    Returns
    -------
    str
        What was done, for the person who asked.

    Raises
    ------
    UserError
        When it does not stop, or was started on another host.
    """
    file = work / "luigid" / "pid"
    process, host = _started(file)
    elsewhere = host not in ("", host_name())
    if elsewhere and answers(place):
        raise UserError(f"the daemon was started on another host, {host}: stop it there")
    if process is None or elsewhere or not _is_luigid(process):
        if answers(place):
            return (f"a daemon answers on {url(place)}, but it was not started from {work}; "
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


def _started(file: Path) -> tuple[int | None, str]:
    """The number of the daemon that was started, and the host where."""
    try:
        number, _, host = file.read_text().strip().partition(" ")
        return int(number), host
    except (OSError, ValueError):  # there is none, or it is garbled
        return None, ""


def _is_luigid(process: int) -> bool:
    """Whether a process is alive and a luigid, and not another that was given its number."""
    try:
        return b"luigid" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
