"""Kills a process at a chosen moment of writing; Python imports this when it starts.

Only processes that a test starts with this folder in PYTHONPATH see it. They die by SIGKILL just
before they call `os.fsync` or `os.replace` where the environment variable FAILPOINT says so: it is
a regular expression on "fsync PATH" or "replace PATH", where PATH is what is synced, or the new
name.
"""

import os
import re
import signal

_originals = {"fsync": os.fsync, "replace": os.replace}


def _path(argument):
    return os.readlink(f"/proc/self/fd/{argument}") if isinstance(argument, int) else argument


def watch(before):
    """Call a function with a line on each sync and each renaming, before it happens."""
    def fsync(descriptor):
        before(f"fsync {_path(descriptor)}")
        _originals["fsync"](descriptor)

    def replace(old, new, **options):
        before(f"replace {new}")
        _originals["replace"](old, new, **options)

    os.fsync, os.replace = fsync, replace


def _kill_where(expression):
    def before(event):
        if re.search(expression, event):
            os.kill(os.getpid(), signal.SIGKILL)

    watch(before)


if os.environ.get("FAILPOINT"):
    _kill_where(os.environ["FAILPOINT"])
