"""Kills a process at a chosen moment of writing; Python imports this when it starts.

Only processes that a test starts with this folder in PYTHONPATH see it. They die by SIGKILL just
before they call `os.fsync` or `os.replace`, or half-way through handing bytes to the operating
system, where the environment variable FAILPOINT says so: it is a regular expression on "fsync
PATH", "replace PATH" or "write PATH", where PATH is what is synced, the new name, or the file that
is written. With FAILPOINT_KILLS=group their whole process group dies.
"""

import builtins
import functools
import io
import os
import re
import signal

_originals = {"fsync": os.fsync, "replace": os.replace, "sendfile": os.sendfile, "open": open}


def _path(argument):
    return os.readlink(f"/proc/self/fd/{argument}") if isinstance(argument, int) else argument


def watch(before):
    """Call a function with a line on each sync, renaming and write; of a write, half is done then.

    Writes are those of files that Python opens by name to write or append.
    """
    def fsync(descriptor):
        before(f"fsync {_path(descriptor)}")
        _originals["fsync"](descriptor)

    def replace(old, new, **options):
        before(f"replace {new}")
        _originals["replace"](old, new, **options)

    class File(io.FileIO):
        def write(self, data):
            data = memoryview(data)
            half = super().write(data[:len(data) // 2])
            before(f"write {self.name}")
            return half + super().write(data[half:])

    def sendfile(out, source, offset, count):  # what shutil copies with
        size = min(count, os.fstat(source).st_size)
        half = _originals["sendfile"](out, source, offset, size // 2)
        before(f"write {_path(out)}")
        return half or _originals["sendfile"](out, source, offset, count)

    def open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **others):
        if isinstance(file, int) or not set(mode) & set("wax") or "+" in mode:
            return _originals["open"](file, mode, buffering, encoding, errors, newline, **others)
        buffer = io.BufferedWriter(File(file, mode.replace("b", "").replace("t", "")))
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)

    os.fsync, os.replace, os.sendfile = fsync, replace, sendfile
    # No function: pathlib of Python 3.10 keeps it in a class, where that would be a method.
    builtins.open = io.open = functools.partial(open)


def _kill_where(expression):
    def before(event):
        if re.search(expression, event):
            if os.environ.get("FAILPOINT_KILLS") == "group":
                os.killpg(0, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    watch(before)


if os.environ.get("FAILPOINT"):
    _kill_where(os.environ["FAILPOINT"])
