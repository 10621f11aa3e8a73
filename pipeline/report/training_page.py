"""The page that shows a training while it runs."""

from __future__ import annotations

import functools
import http.server
import logging
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from pipeline.report.page import write_training_page

logger = logging.getLogger("pipeline")

# The page is written this often, and less often when that would take more than a fiftieth of
# the time.
_SECONDS = 15
_LEAST_REST = 49


class TrainingPage:
    """Keeps a page up to date while a training runs, and serves it; a context manager.

    Luigi's visualiser comes over HTTP, and browsers follow no link from there to a file. So the
    page is served, on the loopback address, as long as the training lasts: to those who know its
    random address, for every user of the machine reaches the port, and every web page does that
    one of them has open. The file stays.

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
        self._address = f"/{secrets.token_urlsafe(16)}/{path.name}"

    def __enter__(self) -> TrainingPage:
        self.update(self._status, self._share)
        handler = functools.partial(_OnePage, page=self._path, address=self._address)
        self._server = _Server(("127.0.0.1", 0), handler)
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
        return f"http://127.0.0.1:{self._server.server_port}{self._address}"

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


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A browser that goes away is nothing to tell of."""


class _OnePage(http.server.BaseHTTPRequestHandler):
    """Serves one file under one address, to browsers that were sent here by no other name."""

    timeout = 10  # seconds that a connection may be silent

    def __init__(self, *arguments: Any, page: Path, address: str):
        self._page, self._address = page, address
        super().__init__(*arguments)

    def do_GET(self) -> None:
        # A web page whose own name is made to lead here would otherwise read what comes.
        port = self.connection.getsockname()[1]
        if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            self.send_error(http.HTTPStatus.MISDIRECTED_REQUEST)
            return
        if not secrets.compare_digest(self.path.encode(), self._address.encode()):
            self.send_error(http.HTTPStatus.NOT_FOUND)
            return
        content = self._page.read_bytes()
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are nobody's business."""
