"""The page that shows a training while it runs."""

from __future__ import annotations

import functools
import http.server
import logging
import threading
import time
from pathlib import Path

from pipeline.report import write_training_page

logger = logging.getLogger("pipeline")

# The page is written this often, and less often when that would take more than a fiftieth of
# the time.
_SECONDS = 15
_LEAST_REST = 49


class TrainingPage:
    """Keeps a page up to date while a training runs, and serves its folder; a context manager.

    Luigi's visualiser comes over HTTP, and browsers follow no link from there to a file. So the
    folder is served, on the loopback address, as long as the training lasts. The file stays.

    Parameters
    ----------
    log : path
        The training's log.
    path : path
        Where the page goes.
    """

    def __init__(self, log: Path, path: Path):
        self._log = log
        self._path = path
        self._status, self._share = "starting", 0.0
        self._due = 0.0

    def __enter__(self) -> TrainingPage:
        self.update(self._status, self._share)
        handler = functools.partial(_Quiet, directory=str(self._path.parent))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._status = "All is done." if error is None else str(error)
        self._write(refresh_seconds=None)
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where a browser finds the page while the training runs."""
        return f"http://127.0.0.1:{self._server.server_port}/{self._path.name}"

    def update(self, status: str, share: float) -> None:
        """Take note of a status line and the share that is done; write the page if it is time."""
        self._status, self._share = status, share
        started = time.monotonic()
        if started >= self._due:
            self._write(refresh_seconds=_SECONDS)
            now = time.monotonic()
            self._due = now + max(_SECONDS, _LEAST_REST * (now - started))

    def _write(self, refresh_seconds: int | None) -> None:
        try:
            write_training_page(self._log, self._path, status=self._status, share=self._share,
                                refresh_seconds=refresh_seconds)
        except Exception as error:  # whatever it is, it must not end the training
            logger.warning("the page %s could not be written: %s", self._path, error)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are nobody's business."""
