"""How stages fail: what is noted of it, and what is told of a process that could not say it."""

from __future__ import annotations

import logging
import mmap
import multiprocessing
import signal

import luigi

from model.system.errors import BadInput
from model.system.processes import end_with_parent
from pipeline.model_process import how_it_ended
from pipeline.stage import Stage

logger = logging.getLogger("pipeline")

# Shared with the processes that run stages: failures for another reason than bad input, and for
# bad input.
_failures = mmap.mmap(-1, 2)


def only_bad_input() -> bool:
    """Whether all stages that have failed did so because of what they were given."""
    return _failures[:] == b"\0\1"


@Stage.event_handler(luigi.Event.FAILURE)
@Stage.event_handler(luigi.Event.PROCESS_FAILURE)
def _note_failure(_: Stage, error: BaseException | str) -> None:
    _failures[isinstance(error, BadInput)] = 1


@Stage.event_handler(luigi.Event.START)
def _end_with_worker(_: Stage) -> None:
    """Let Linux kill a stage's process when the worker that forked it is gone.

    It would go on for as long as the stage takes, and the next run would wait for it.
    """
    worker = multiprocessing.parent_process()
    if worker is not None and worker.pid is not None:
        end_with_parent(worker.pid, signal.SIGKILL)


@Stage.event_handler(luigi.Event.PROCESS_FAILURE)
def _tell_how_it_ended(stage: Stage, message: str) -> None:
    """Say why a stage failed whose process was killed and could not say it.

    Luigi gives a text, at the end of which stands the exit code.
    """
    logger.error("error: %s: its process %s", stage.task_family,
                 how_it_ended(int(message.rpartition(" ")[2])))
