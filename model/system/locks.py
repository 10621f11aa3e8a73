"""A lock that hosts share, on any file system: a file that exists while a process holds it.

Locks of the system (flock) are not to be had on every network file system, or hold on one host
alone. That a file is made by one process only holds on all of them (open(2), O_EXCL). The file
tells who holds the lock, so that one that a killed process has left is known at once on the same
host. On another it is known by its time, which the holder sets every few seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from model.system.files import temporary_beside
from model.system.processes import ProcessName, this_process

_BEAT_SECONDS = 5.0
# So long the file's time has to stand still until a holder on another host counts as gone.
_QUIET_SECONDS = 60.0
_LOOK_SECONDS = 0.2
# A look that took longer says nothing of the holder: its server may have been away for both.
_LONG_LOOK_SECONDS = 10.0


class _Seen(NamedTuple):
    """What a lock's file says, and its time."""

    content: bytes
    mtime_ns: int

    def holder(self) -> ProcessName | None:
        """None where the process that made the file has not written its name, or never will."""
        try:
            return ProcessName(*json.loads(self.content)["holder"])
        except (ValueError, KeyError, TypeError):
            return None


@contextlib.contextmanager
def holding(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock; wait while another process holds it.

    Who was taken for gone, as after a suspension of more than a minute, and has lost the lock to a
    process of another host, ends: SIGTERM is sent to this process then.

    Parameters
    ----------
    path : path
        The lock's file, in a folder that exists.
    waiting : function
        Called once with who holds the lock, for a message, before it is waited for.

    Raises
    ------
    OSError
        Where the file cannot be made.
    """
    mine = json.dumps({"holder": this_process(), "lock": uuid.uuid4().hex}).encode()
    _wait_for(path, mine, waiting)
    released = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, mine, released), daemon=True)
    beat.start()
    try:
        yield
    finally:
        released.set()
        beat.join()
        if (seen := _look(path)) and seen.content == mine:
            path.unlink(missing_ok=True)


def _wait_for(path: Path, mine: bytes, waiting: Callable[[str], None]) -> None:
    told = False
    last, quiet_since, looked = None, time.monotonic(), time.monotonic()
    while not _make(path, mine):
        seen, now = _look(path), time.monotonic()
        if seen is None:
            continue
        holder = seen.holder()
        here = holder is not None and holder.is_known_here()
        if here and holder is not None and holder.has_ended():
            _take_away(path, seen)
            continue
        if here or seen != last or now - looked > _LONG_LOOK_SECONDS:
            quiet_since = now
        if now - quiet_since > _QUIET_SECONDS:
            _take_away(path, seen)
            continue
        if not told and holder is not None:
            waiting(f"process {holder.number}" + ("" if here else f" on {holder.host}"))
            told = True
        last, looked = seen, now
        time.sleep(_LOOK_SECONDS)


def _make(path: Path, mine: bytes) -> bool:
    """Make the lock's file; False where there is one."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, mine)
        os.fsync(descriptor)
    except OSError:  # the disk is full
        path.unlink()
        raise
    finally:
        os.close(descriptor)
    return True


def _look(path: Path) -> _Seen | None:
    """The lock's file as it is now, for it is opened; None where there is none any more."""
    try:
        with open(path, "rb", buffering=0) as file:
            return _Seen(file.read(), os.fstat(file.fileno()).st_mtime_ns)
    except OSError:
        return None


def _take_away(path: Path, seen: _Seen) -> None:
    """Remove what a process that is gone has left, and nothing else.

    Several may find out at once, and one of them have made the file anew: it is moved aside, which
    one alone can do, and put back where it is another than was seen.
    """
    aside = temporary_beside(path)
    with contextlib.suppress(OSError):
        os.rename(path, aside)
        found = _look(aside)
        if found and found.content != seen.content:
            with contextlib.suppress(OSError):  # whose it was notices
                os.link(aside, path)
        aside.unlink()


def _beat(path: Path, mine: bytes, released: threading.Event) -> None:
    """Show every few seconds that the holder is alive, and see to it that it still holds."""
    while not released.wait(_BEAT_SECONDS):
        try:
            with open(path, "rb", buffering=0) as file:
                if file.read() == mine:
                    os.utime(file.fileno())
                    continue
        except FileNotFoundError:
            pass
        except OSError:  # for now the file system does not answer
            continue
        if not released.is_set():
            print(f"error: {path} is another process's now, or gone: this one has been silent for "
                  "so long that it was taken for dead, and ends", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            return
