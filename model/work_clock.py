"""How long a training has worked: its time budget is one of work, not of sleep."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger(__name__)

# A gap between two looks at the clock is no work when it is longer than this, in seconds, and the
# process computed in less than this share of it.
_GAP_SECONDS = 5.0
_GAP_SHARE = 0.1


class WorkClock:
    """Seconds of work: not those in which the process was stopped, or the machine slept.

    Parameters
    ----------
    seconds : float
        Of earlier runs of the same training.
    """

    def __init__(self, seconds: float = 0.0):
        self._seconds = seconds
        self._wall, self._computed = time.monotonic(), time.process_time()

    def seconds(self) -> float:
        """The seconds so far; to be asked after each micro-batch."""
        wall, computed = time.monotonic(), time.process_time()
        gap, work = wall - self._wall, computed - self._computed
        if gap > _GAP_SECONDS and work < _GAP_SHARE * gap:
            logger.warning("for %.0f s the training did not run (suspended?); they do not count "
                           "for its time budget", gap - work)
            gap = work
        self._wall, self._computed = wall, computed
        self._seconds += gap
        return self._seconds
