"""Luigi's workers of a run: the one that began it, and those that help it from other hosts.

A helper takes parts of the corpus alone, of one working folder. All that these need lies in it,
and all that is made of them has a name that tells what it was made from: so it does no harm where a
helper dies, is taken for dead, or does again what another has done. What else there is to do stays
with the run itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import luigi.worker
from luigi.rpc import RPCError

from model.system.errors import UserError
from pipeline.daemon import HELPER, Client
from pipeline.job_settings import take_settings
from pipeline.stage import PartStage
from pipeline.tasks import EncodePart, TokenizePart, formats

_PARTS: dict[str, type[PartStage]] = {
    task.get_task_family(): task for task in (TokenizePart, EncodePart)}
_SECONDS_BETWEEN_LOOKS = 1.0


class RunWorker(luigi.worker.Worker):
    """The worker of a run: it stays while others are at tasks of its own, and takes them back.

    Luigi's own leaves where nothing is left for it to do, and waits for as long as a quarter of an
    hour before a task is given out again whose worker has died.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._looked = 0.0

    def run(self) -> bool:
        """As Luigi's; what others have made counts as made."""
        succeeded = super().run()
        if succeeded:
            done = self._scheduler.task_list("DONE", "", limit=False)
            self._add_task_history += [(task, "DONE", True) for name, task
                                       in self._scheduled_tasks.items() if name in done]
        return succeeded

    def _get_work(self) -> Any:
        # Luigi counts as unfinished what another worker was ever seen at.
        self._get_work_response_history = self._get_work_response_history[-1:]
        return super()._get_work()

    def _keep_alive(self, get_work_response: Any) -> bool:
        if not self.run_succeeded:
            return False
        if get_work_response.running_tasks:
            if time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
                self._looked = time.monotonic()
                self._scheduler.prune()  # are they alive that are at it?
            return True
        return bool(get_work_response.n_pending_tasks) and self._take_back()

    def _take_back(self) -> bool:
        """Let tasks be given out again that have failed, none of them here; whether there are any.
        """
        lost = [name for name in self._scheduler.task_list("FAILED", "", limit=False)
                if name in self._scheduled_tasks]
        for name in lost:
            self._scheduler.forgive_failures(task_id=name)
        return bool(lost)


class HelperClient(Client):
    """The client of a helper: it takes the parts of one working folder, and no other tasks.

    Parameters
    ----------
    address : str
    work : path
        The working folder.
    """

    def __init__(self, address: str, work: Path):
        super().__init__(address)
        self._work = str(work)

    def offered(self) -> dict[str, dict]:
        """The tasks that a helper can take now, by name, as the daemon lists them."""
        pending: dict[str, dict] = self.task_list(  # type: ignore[attr-defined]
            "PENDING", "", limit=False)
        return {name: task for name, task in pending.items()
                if task["name"] in _PARTS and task["params"].get("settings_digest")
                and task["params"].get("working_folder") == self._work}

    def get_work(self, **options: Any) -> dict:
        """Ask for a task; whatever the daemon gives out, it is one of ours that is done."""
        work = super().get_work(**options)
        if work["task_id"] is not None:
            task = self.task_of(work)
            if task.task_id != work["task_id"] or task.working_folder != self._work:
                raise RPCError(f"it gives out {str(work['task_id'])[:100]!r} as another task")
        return work

    def task_of(self, work: dict) -> PartStage:
        """The task that the daemon has given out."""
        family, parameters = work["task_family"], work["task_params"]
        if family not in _PARTS or work["task_module"] != _PARTS[family].__module__:
            raise RPCError(f"it gives out a task that no helper takes, {str(family)[:100]!r}")
        return _PARTS[family].from_str_params(parameters)

    def take(self, name: str, worker: str) -> None:
        """Tell the daemon that a worker takes a task that another has asked for."""
        self.add_task(task_id=name, worker=worker, status="PENDING", resources={})


class Helper(luigi.worker.Worker):
    """A worker that helps a run which another began.

    Parameters
    ----------
    client : HelperClient
    work : path
        The working folder.
    processes : int
        How many tasks it does side by side.
    """

    def __init__(self, client: HelperClient, work: Path, processes: int):
        super().__init__(scheduler=client, worker_processes=processes)
        self._client, self._work = client, work
        self._settings: str | None = None
        self._looked = 0.0

    def _generate_worker_id(self, worker_info: Any) -> str:
        return HELPER + super()._generate_worker_id(worker_info).partition("(")[2]

    def _get_work(self) -> Any:
        waited = time.monotonic() - self._looked
        if waited > _SECONDS_BETWEEN_LOOKS and not self._stop_requesting_work:
            self._looked = time.monotonic()
            for name, task in self._client.offered().items():
                if self._id not in task["workers"]:
                    self._prepare(task["params"]["settings_digest"])
                    self._client.take(name, self._id)
        self._get_work_response_history = []
        return super()._get_work()

    def _prepare(self, digest: str) -> None:
        if digest != self._settings:
            take_settings(self._work, digest, formats())
            self._settings = digest

    def _create_task_process(self, task: Any) -> Any:
        self._prepare(task.settings_digest)
        return super()._create_task_process(task)

    def _keep_alive(self, get_work_response: Any) -> bool:
        return self.run_succeeded

    def _add_task(self, *arguments: Any, **options: Any) -> None:
        super()._add_task(*arguments, **options)
        if options["status"] == "FAILED":
            self._start_phasing_out()  # or it would be given the same task again


def help_runs(address: str, work: Path, processes: int, say: Callable[[str], None]) -> None:
    """Help the runs in a working folder, one after the other, until the process is ended.

    Parameters
    ----------
    address : str
        Where the daemon of the runs is.
    work : path
        The working folder.
    processes : int
        How many tasks are done side by side.
    say : function
        Called with a line for people.
    """
    waited, last = 1.0, ""
    while True:
        started = time.monotonic()
        try:
            helper = Helper(HelperClient(address, work), work, processes)
            with helper:
                helper.run()
            # A task has failed here; the run that it belongs to takes it back.
            why = "a task has failed here (its error is above), and is left to others"
        except RPCError as error:
            why = f"{address} does not answer as Luigi's daemon does ({error})"
        except UserError as error:
            why = str(error)
        waited = min(60.0, 2 * waited) if time.monotonic() - started < 60 else 1.0
        if why != last:
            say(f"{why}; trying again")
        last = why
        time.sleep(waited)
