"""A file of others read in a process of its own: see `model.system.untrusted.try_out`.

``python -m model.trial FILE SECONDS PARENT``: whether it survives is all that it says.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
from pathlib import Path

from .description import description
from .system.errors import UserError
from .system.processes import end_with_parent

_SPARE_BYTES = 1 << 30  # of memory, beside some times the file's own size


def main(path: Path, seconds: int, parent: int) -> None:
    end_with_parent(parent, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    # What is wrong with it in other ways is said when it is read again.
    with contextlib.suppress(UserError, OSError):
        memory = 4 * path.stat().st_size + _SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        description(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
