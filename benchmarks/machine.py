"""What the figures were measured on, and the memory of processes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.workers import left_out

_PACKAGES = ("Theano", "Lasagne", "numpy", "scipy-openblas32", "luigi", "polars", "torch")


def machine() -> dict:
    """Processor, memory, and versions of all that matters for speed."""
    return {
        "processor": _field("/proc/cpuinfo", "model name"),
        "processor_family_model": [_field("/proc/cpuinfo", key) for key in ("cpu family", "model")],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "compiler": _first_line("g++", "--version"),
        "settings_left_out": left_out(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def driver() -> str:
    """The version of the driver of NVIDIA's cards, as nvidia-smi says it; "none" without that."""
    return _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


@contextmanager
def conditions() -> Iterator[dict]:
    """When the block was measured, and the load of the machine before and after.

    Yields
    ------
    dict
        Complete when the block has ended. Load averages are those of the last minute.
    """
    started = time.time()
    noted = {"started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started)),
             "load_before": round(os.getloadavg()[0], 2)}
    yield noted
    noted["minutes"] = round((time.time() - started) / 60, 1)
    noted["load_after"] = round(os.getloadavg()[0], 2)


def busy_cores(seconds: float = 1) -> float:
    """How many of the machine's cores are at work, on average over so many seconds from now.

    A load average would still count what has ended.
    """
    before, started = _work(), time.perf_counter()
    time.sleep(seconds)
    return (_work() - before) / (time.perf_counter() - started)


def _work() -> float:
    """Seconds of work of all cores since the machine was started."""
    user, nice, system, _, _, *others = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    return sum(map(int, (user, nice, system, *others))) / os.sysconf("SC_CLK_TCK")


def peak_memory() -> float:
    """The most memory that this process has had at once, in MB.

    Not from getrusage: its maximum begins with that of the process that started this one.
    """
    return int(_field("/proc/self/status", "VmHWM").split()[0]) / 1024


def family_memory(process: int) -> float:
    """Memory of a process and all below it now, in MB; shared pages count once."""
    return sum(map(_proportional, [process, *_below(process)])) / 1024


def _below(process: int) -> list[int]:
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                found += [child, *_below(child)]
    return found


def _proportional(process: int) -> int:
    try:
        return int(_field(f"/proc/{process}/smaps_rollup", "Pss").split()[0])
    except (OSError, KeyError):  # it has just ended
        return 0


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    raise KeyError(f"{path} has no line {name}")


def _first_line(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.partition("\n")[0]
    except OSError:
        return "none"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
