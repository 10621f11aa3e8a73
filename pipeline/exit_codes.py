"""How the commands end."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of ``python -m pipeline``; those of a run, [retcode] of luigi.cfg sets.

    Each says what happened and whether the same command can succeed later although nobody does
    anything, so that trying again is worth while.
    """

    meaning: str
    passes: bool

    def __new__(cls, code: int, meaning: str, passes: bool) -> ExitCode:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning, member.passes = meaning, passes
        return member

    DONE = 0, "all is done, or nothing had changed", False
    NOT_BEGUN = (
        1, "the command could not begin: a folder that cannot be written, a paused daemon, another "
        "program on its port, a report without a run", True)
    WRONG_OPTION = 2, "an unknown option, or a value or a profile that there is not", False
    WORSE = (
        3, "the run is complete, but its model is worse than the current one, on the same "
        "validation text, by more than [run] tolerance: models/current stays as it was", False)
    ALREADY_RUNNING = 10, "a task was not given to this worker, because another one was at it", True
    MISSING_DATA = 20, "Luigi's code for data that another program has to bring; not used", True
    NOT_RUN = 25, "the scheduler gave a task to no worker, or to another one", True
    TASK_FAILED = (
        30, "a task failed for a reason that may pass, as the disk, the network, or a process that "
        "was killed; the message says which and why", True)
    SCHEDULING_ERROR = 35, "what is to be done could not be determined; the message says why", True
    UNHANDLED_EXCEPTION = 40, "an error in the program, or the daemon was lost in mid-run", True
    BAD_INPUT = (
        65, "the job cannot use what it was given: a corpus that is missing or has a bad "
        "line, a word list, a rate with which the training diverges; the message says which and "
        "why", False)
    WRONG_SETTINGS = 78, "settings that cannot be used; each in a line, with file and line", False
    INTERRUPTED = 130, "interrupted from the keyboard", True
    TERMINATED = 143, "ended by SIGTERM", True
