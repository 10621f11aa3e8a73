"""Several processes that train one network, by MPI: what they tell and give each other.

Nothing here waits without an end: every message is from one process to another, so that the one
that is missing is known. Sums are added by recursive halving and doubling [1]_, where processes
pair as slots do (`model.slots`), so that every sum is made in the same order whatever their number.

References
----------
.. [1] Thakur, R., Rabenseifner, R., & Gropp, W. (2005): Optimization of collective communication
       operations in MPICH. International Journal of High Performance Computing Applications 19 (1).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from model.processes import Alone
from model.system.errors import UserError

if TYPE_CHECKING:  # it starts threads, of which there may be fewer: see `Processes.meet`
    from model.trainer import State, Trainer

# What messages are about.
_MEET, _ARRIVE, _VOTE, _FIRST, _RESULT, _SUMS, _WAITING = range(1, 8)

# While others may compile, processes are waited for so many times as long.
_PATIENCE_AT_START = 10
# Seconds in which a wait is a busy one, and between two looks after that.
_BUSY = 0.002
_PAUSE = 0.0002
# Seconds in which all who wait themselves answer a process that has waited too long.
_GRACE = 2.0
# Arrays of fewer numbers are sent together.
_SMALL = 1 << 16
# Seconds in which a launcher passes on what a process has written: it forgets it where MPI aborts.
_LAST_LINES = 1.0
# Seconds after which a process that cannot even say so ends itself.
_LAST_RESORT = 5.0


class Processes(Alone):
    """The processes that a launcher of MPI has started, as one of them sees them.

    Parameters
    ----------
    expected : int
        How many were asked for.
    longest_wait : float
        Seconds.

    Raises
    ------
    UserError
        When there is no MPI here, or it knows of another number.
    """

    def __init__(self, expected: int, longest_wait: float):
        super().__init__()
        try:
            from mpi4py import MPI  # which starts it
        except (ImportError, RuntimeError) as error:
            raise UserError(f"[run] processes = {expected} needs mpi4py and an MPI library, and "
                            f"there is none that can be used here ({error}): 'make run "
                            f"PROCESSES={expected}' installs both") from None
        self._mpi, self._comm = MPI, MPI.COMM_WORLD
        self.rank, self.count = self._comm.Get_rank(), self._comm.Get_size()
        if self.count != expected:
            library = MPI.Get_library_version().split("\n")[0].strip()
            raise UserError(
                f"[run] processes = {expected}, but MPI counts {self.count}: this is rank "
                f"{self.rank} on {socket.gethostname()}, with {library}. [run] launcher starts "
                "another number, or is that of another MPI: name its library with MPI4PY_LIBMPI, "
                "and with srun the right --mpi (docs/clusters.md)")
        self._others = [rank for rank in range(self.count) if rank != self.rank]
        self._wait = _PATIENCE_AT_START * longest_wait
        self._longest_wait = longest_wait
        self._hosts = dict.fromkeys(range(self.count), "its host")
        self._sent: list = []
        self._last_wish: bool | None = None
        self._waits_since: float | None = None
        self._waiting: set[int] = set()  # others that are known to wait, too
        self._is_known_to_wait = False
        self.place = 0  # among the processes of this host

    def meet(self) -> None:
        """Wait for all; then each knows the others' hosts, and takes its share of the cores.

        To be called before anything is imported that starts threads.
        """
        cores = frozenset(os.sched_getaffinity(0))
        found = self._all((socket.gethostname(), cores), _MEET)
        self._hosts = {rank: host for rank, (host, _) in enumerate(found)}
        here = [rank for rank, host in self._hosts.items() if host == self._hosts[self.rank]]
        self.place = here.index(self.rank)
        # A launcher may have given each process cores of its own.
        sharing = sum(found[rank][1] == cores for rank in here)
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(cores) // sharing)))
        threading.Thread(target=self._watch, daemon=True).start()

    def device(self, name: str) -> str:
        """The device: of cards one for each process of this host, in turn."""
        from model.engine import count_cards

        return f"cuda:{self.place % max(1, count_cards())}" if name == "cuda" else name

    def begin(self) -> None:
        self._arrive()
        self._wait = self._longest_wait
        super().begin()

    def any(self, wish: bool) -> bool:
        before, self._last_wish = self._last_wish, wish
        self._tell(self._others, wish, _VOTE)
        if before is None:
            return False
        return any([before, *self._hear(self._others, _VOTE).values()])

    def of_first(self, value: Any) -> Any:
        if self.is_first:
            self._tell(self._others, value, _FIRST)
            return value
        return self._hear([0], _FIRST)[0]

    def in_order(self, compute: Callable[..., np.ndarray], items: Iterable[tuple],
                 before: Callable[[], None]) -> Iterator[np.ndarray]:
        remaining = iter(items)
        while group := list(itertools.islice(remaining, self.count)):
            before()
            own = compute(*group[self.rank]) if self.rank < len(group) else None
            yield from self._all(own, _RESULT)[:len(group)]

    def add_up(self, trainer: Trainer) -> None:
        self._arrive()
        started = time.monotonic()
        sums = [np.asarray(each, order="C") for each in trainer.sums()]
        together: dict[np.dtype, list[int]] = {}
        for number, each in enumerate(sums):
            if each.size < _SMALL:
                together.setdefault(each.dtype, []).append(number)
            else:
                self._add_up(each.reshape(-1))
        for numbers in together.values():
            packed = np.concatenate([sums[number].reshape(-1) for number in numbers])
            self._add_up(packed)
            ends = np.cumsum([sums[number].size for number in numbers])
            for number, part in zip(numbers, np.split(packed, ends[:-1])):
                sums[number] = part.reshape(sums[number].shape).copy()
        trainer.set_sums(sums)
        self.waited += time.monotonic() - started

    def check_same(self, state: State) -> None:
        digest = 0
        for value in (*state.parameters.values(), *state.optimiser):
            digest = zlib.crc32(np.ascontiguousarray(value).data, digest)
        found = self._all(digest, _RESULT)
        if other := [rank for rank in self._others if found[rank] != digest]:
            raise UserError(
                f"{self._name(self.rank)} and {self._name(other[0])} have come to different "
                "parameters: all hosts must have processors of one kind, and the same versions of "
                "all packages. The next run goes on from the last checkpoint")

    def table(self) -> list[dict]:
        return self._all(self.facts(), _RESULT)

    def finish(self) -> None:
        """Wait until all have come to their end."""
        if self._last_wish is not None:
            self._hear(self._others, _VOTE)
        self._arrive()

    def abort(self) -> NoReturn:
        """End all processes, wherever they are; what is to be said has been written."""
        sys.stderr.flush()
        time.sleep(_LAST_LINES)
        self._waits_since = time.monotonic() - self._wait  # where the launcher is lost, too
        try:
            self._comm.Abort(1)
        finally:  # which has failed; to leave MPI in order would be to wait for the others
            os._exit(1)

    def _watch(self) -> None:
        """End this process where MPI itself does not come back, as when a network is lost."""
        while True:
            time.sleep(1)
            since, longest = self._waits_since, self._wait + _GRACE + _LAST_RESORT
            if since is not None and time.monotonic() - since > longest:
                os._exit(1)

    def _arrive(self) -> None:
        self._all(None, _ARRIVE)

    def _all(self, value: Any, tag: int) -> list:
        """What all processes say, by rank."""
        self._tell(self._others, value, tag)
        heard = self._hear(self._others, tag)
        return [heard.get(rank, value) for rank in range(self.count)]

    def _tell(self, ranks: list[int], value: Any, tag: int) -> None:
        with self._explained(ranks):
            self._sent += [self._comm.isend(value, rank, tag) for rank in ranks]

    def _hear(self, ranks: list[int], tag: int) -> dict[int, Any]:
        """What others say, by rank; what was told before has then left this process."""
        heard: dict[int, Any] = {}
        self._waits_since = started = time.monotonic()
        while True:
            missing = [rank for rank in ranks if rank not in heard]
            with self._explained(missing):
                for rank in missing:
                    if message := self._comm.improbe(rank, tag):
                        heard[rank] = message.recv()
                self._sent = [request for request in self._sent if not request.test()[0]]
            if len(heard) == len(ranks) and not self._sent:
                break
            self._pause(started, missing or self._others)
        self._waits_since = None
        self.waited += time.monotonic() - started
        return heard

    def _add_up(self, array: np.ndarray) -> None:
        """Add the arrays of all processes, in place."""
        begin, end, distance, done = 0, array.size, 1, []
        while distance < self.count:
            other, middle = self.rank ^ distance, (begin + end) // 2
            keep, give = slice(begin, middle), slice(middle, end)
            if self.rank & distance:
                keep, give = give, keep
            got = np.empty_like(array[keep])
            self._exchange(other, array[give], got)
            array[keep] += got
            done.append((other, keep, give))
            begin, end, distance = keep.start, keep.stop, 2 * distance
        for other, keep, give in reversed(done):
            self._exchange(other, array[keep], array[give])

    def _exchange(self, other: int, given: np.ndarray, got: np.ndarray) -> None:
        self._waits_since = started = time.monotonic()
        with self._explained([other]):
            requests = [self._comm.Irecv(got, other, _SUMS), self._comm.Isend(given, other, _SUMS)]
            while not self._mpi.Request.Testall(requests):
                self._pause(started, [other], busy=True)
        self._waits_since = None

    def _pause(self, started: float, missing: list[int], busy: bool = False) -> None:
        """Let others work for a moment; UserError when the wait has lasted too long."""
        waited = time.monotonic() - started
        self._answer()
        if waited > self._wait:
            names = ", ".join(map(self._name, self._silent() or missing))
            raise UserError(
                f"{self._name(self.rank)} has waited {waited:,.0f} seconds for {names}, longer "
                f"than [run] longest_wait = {self._longest_wait:g} allows: it hangs, or its host "
                "or the network is lost. The next run goes on from the last checkpoint")
        if busy or waited < _BUSY:
            os.sched_yield()
        else:
            time.sleep(_PAUSE)

    def _answer(self) -> None:
        """Tell the others that this process waits, too, where one of them asks."""
        with self._explained(self._others):
            while message := self._comm.improbe(tag=_WAITING):
                self._waiting.add(message.recv())
        if self._waiting and not self._is_known_to_wait:
            self._is_known_to_wait = True
            self._tell(self._others, self.rank, _WAITING)

    def _silent(self) -> list[int]:
        """Those that do not wait themselves, when all is at a stand: one of many is missing."""
        self._waiting.add(self.rank)
        asked = time.monotonic()
        while time.monotonic() - asked < _GRACE:
            self._answer()
            time.sleep(_PAUSE)
        return [rank for rank in self._others if rank not in self._waiting]

    def _name(self, rank: int) -> str:
        return f"rank {rank} on {self._hosts[rank]}"

    @contextlib.contextmanager
    def _explained(self, ranks: list[int]) -> Iterator[None]:
        try:
            yield
        except self._mpi.Exception as error:
            names = ", ".join(map(self._name, ranks))
            raise UserError(f"{self._name(self.rank)} cannot reach {names}: "
                            f"{error}. The next run goes on from the last checkpoint") from error
