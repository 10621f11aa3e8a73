"""Fetch a corpus from the web: a text, compressed or not, or an archive of sentences."""

from __future__ import annotations

import contextlib
import email.message
import email.utils
import hashlib
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from model.system.errors import BadInput, UserError
from model.system.files import publish
from model.system.locks import holding
from pipeline.corpus.archives import is_archive, take_text, unpack

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 16
# An attempt that brings so much is none of those that are counted: a long download over a bad
# line ends, and a server that sends next to nothing is not asked for ever.
_WORTH_AN_ATTEMPT = 1 << 20
_LONGEST_PAUSE = 60.0
# Answers that may be different a little later (RFC 9110, 15.5.9 and 15.6; RFC 6585, 4).
_TEMPORARY_STATUSES = {408, 425, 429, 500, 502, 503, 504}


class _Interrupted(Exception):
    """A failure that another attempt may not meet."""


def download(
    url: str,
    target: str | os.PathLike,
    *,
    size: int | None = None,
    max_bytes: int | None = None,
    sha256: str | None = None,
    attempts: int = 6,
    pause: float = 1.0,
    timeout: float = 60.0,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Fetch a file over HTTP, going on where an earlier attempt or an earlier run was cut off.

    What has arrived lies in ``.<name>.part`` beside the target. It is continued only if the server
    confirms that the file is still the one it was (RFC 9110, 13.1.5: If-Range, with a strong entity
    tag, or with a date of modification that is old enough to be relied on). Otherwise, and from a
    server that sends no parts, the file is fetched from the start.

    Parameters
    ----------
    url : str
        An http or https address.
    target : path
        Where the file appears, once it is whole and verified.
    size : int, optional
        The bytes that it must have.
    max_bytes : int, optional
        Where no size is given, the most that it may have.
    sha256 : str, optional
        The digest that it must have, in hexadecimal.
    attempts : int
        How often to try in all.
    pause : float
        Seconds to wait after the first failure; twice as long after each further one, at most 60.
    timeout : float
        Seconds without a sign of the server that count as a failure.
    progress : callable, optional
        Called often with the bytes that are there and the bytes of the whole file, None if unknown.

    Returns
    -------
    pathlib.Path
        The target.

    Raises
    ------
    UserError
        When the address is not one, the server refuses or does not answer, it sends on to an
        address that is not followed, the file is not the one expected or too large, the disk does
        not take it, or another process is fetching it.

    References
    ----------
    R. Fielding, M. Nottingham, J. Reschke: HTTP Semantics. RFC 9110, 2022.
    """
    _check_address(url)
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _Part(target, url) as part:
            attempt = 0
            while True:
                before = part.bytes
                try:
                    _fetch_rest(url, part, size, max_bytes, timeout, progress)
                    _verify(url, part, size, sha256)
                    break
                except _Interrupted as error:
                    attempt = 1 if part.bytes - before >= _WORTH_AN_ATTEMPT else attempt + 1
                    if attempt >= attempts:
                        raise UserError(
                            f"{url}: not fetched in {attempt} attempts; the last one: {error}. "
                            f"{part.kept()}"
                        ) from None
                    wait = min(pause * 2 ** (attempt - 1), _LONGEST_PAUSE)
                    logger.warning("%s: %s; attempt %d of %d in %g s",
                                   url, error, attempt + 1, attempts, wait)
                    time.sleep(wait)
            with publish(target) as temporary:
                part.move(temporary)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error}. Check the free space and the permissions of its "
            "folder."
        ) from error
    return target


class _Part:
    """The beginning of a file, and what is known of the whole, kept from one run to the next.

    Attributes
    ----------
    path : pathlib.Path
        Holds the bytes that have arrived.
    bytes : int
        Their number.
    validator : str or None
        What the server is to compare before it sends the rest; None if the rest cannot be had.
    total : int or None
        Bytes of the whole file, if known.
    resumed : bool
        Whether the bytes come from more than one answer of the server, or from an earlier run.
    """

    def __init__(self, target: Path, url: str):
        self.path = target.with_name(f".{target.name}.part")
        self._state = target.with_name(f".{target.name}.part.json")
        self._url = url

    def __enter__(self) -> _Part:
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(
            holding(self.path.with_name(f"{self.path.name}.locked-by"), self._refuse))
        self._file: BinaryIO = self._lock.enter_context(open(self.path, "ab"))
        self.bytes = self._file.tell()
        self.resumed = self.bytes > 0
        self.validator: str | None = None
        self.total: int | None = None
        # Without an intact note of whose beginning this is, it is of no use.
        with contextlib.suppress(FileNotFoundError, ValueError):
            state = json.loads(self._state.read_text(encoding="utf-8"))
            if state["url"] == self._url:
                self.validator, self.total = state["validator"], state["total"]
        if self.validator is None or (self.total is not None and self.bytes > self.total):
            self.restart(None, None)
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure and (self.validator is None or self.bytes == 0):
            self.path.unlink(missing_ok=True)
            self._state.unlink(missing_ok=True)
        self._lock.close()

    def _refuse(self, holder: str) -> None:
        raise UserError(f"{self._url}: another process ({holder}) is fetching it to {self.path}")

    def restart(self, validator: str | None, total: int | None) -> None:
        """Drop all bytes; those that come now are of the file described here."""
        self._file.truncate(0)
        self.bytes, self.validator, self.total, self.resumed = 0, validator, total, False
        state = {"url": self._url, "validator": validator, "total": total}
        self._state.write_text(json.dumps(state), encoding="utf-8")

    def append(self, block: bytes) -> None:
        """Add bytes that have arrived."""
        self._file.write(block)
        self.bytes += len(block)

    def digest(self) -> str:
        """The SHA-256 of the bytes, in hexadecimal."""
        self._file.flush()
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def move(self, path: Path) -> None:
        """Give the bytes, which are whole now, another name."""
        self._file.flush()
        os.replace(self.path, path)
        self._state.unlink(missing_ok=True)

    def kept(self) -> str:
        """What the next run will do with the bytes, for an error message."""
        if self.validator is None or self.bytes == 0:
            return "The next run starts from the beginning."
        return f"The {self.bytes} bytes that arrived are kept; the next run goes on from there."


def _check_address(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"[\x00-\x20\x7f]", url):
        raise BadInput(f"{url!r} is not an http or https address")


def _fetch_rest(
    url: str,
    part: _Part,
    size: int | None,
    max_bytes: int | None,
    timeout: float,
    progress: Callable[[int, int | None], None] | None,
) -> None:
    """Make one request, for what is missing, and append what comes."""
    if part.total is not None and part.bytes == part.total:
        return
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if part.validator is None:
        part.restart(None, None)
    elif part.bytes:
        request.add_header("Range", f"bytes={part.bytes}-")
        request.add_header("If-Range", part.validator)
    with _open(request, part, timeout) as response:
        if response.status == 206 and part.bytes:
            _check_continuation(response, part)
            part.resumed = True
        elif response.status == 200:
            length = response.headers.get("Content-Length", "")
            part.restart(_validator(response.headers), int(length) if length.isdigit() else None)
        else:
            raise UserError(f"{url}: unexpected answer {response.status} {response.reason}")
        if size is not None and part.total not in (None, size):
            raise BadInput(
                f"{url}: the server's file has {part.total} bytes, {size} are expected: it has "
                "changed, or the expected size is wrong"
            )
        limit = max_bytes if size is None else None
        if limit is not None and (part.total or 0) > limit:
            raise BadInput(f"{url}: the server's file has {part.total:,} bytes, "
                           f"{_too_many(limit)}")
        while block := _read(response):
            part.append(block)
            if size is not None and part.bytes > size:
                part.restart(None, None)
                raise BadInput(f"{url}: more than the expected {size} bytes arrived")
            if limit is not None and part.bytes > limit:
                arrived = part.bytes
                part.restart(None, None)
                raise BadInput(f"{url}: {arrived:,} bytes have arrived, {_too_many(limit)}")
            if progress:
                progress(part.bytes, part.total)
    if part.total is not None and part.bytes < part.total:
        raise _Interrupted(f"the connection ended after {part.bytes} of {part.total} bytes")


def _too_many(limit: int) -> str:
    return (f"more than the {limit:,} that [download] max_bytes allows: raise it, or give the "
            "[download] size")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to another address where that is as safe as the first one."""

    def redirect_request(self, request, *arguments):
        url = arguments[-1]
        before, after = (urllib.parse.urlsplit(each).scheme for each in (request.full_url, url))
        if after != "https" and (before, after) != ("http", "http"):
            raise BadInput(f"{request.full_url}: the server sends on to {url}, which is not "
                           "followed: only from http to http or https, and from https to https")
        return super().redirect_request(request, *arguments)


_opener = urllib.request.build_opener(_Redirects)


def _open(
    request: urllib.request.Request, part: _Part, timeout: float
) -> http.client.HTTPResponse:
    try:
        return _opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answers {error.code} {error.reason}"
        if error.code == 416 and part.bytes:
            part.restart(None, None)
            raise _Interrupted(f"{answer} to the request for the rest") from None
        if error.code in _TEMPORARY_STATUSES:
            raise _Interrupted(answer) from None
        raise UserError(f"{request.full_url}: {answer}") from None
    except urllib.error.URLError as error:
        raise _Interrupted(f"no connection: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"no answer: {error!r}") from None


def _read(response: http.client.HTTPResponse) -> bytes:
    # read1 returns what is there: read would lose the beginning of a block that is cut off.
    try:
        return response.read1(_BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"the connection was lost: {error!r}") from None


def _check_continuation(response: http.client.HTTPResponse, part: _Part) -> None:
    """Make sure that a partial answer goes on where the part ends, in the same file."""
    given = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", given)
    tag = response.headers.get("ETag")
    if (
        match is None
        or int(match[1]) != part.bytes
        or (part.total is not None and match[2] not in ("*", str(part.total)))
        or (tag is not None and (part.validator or "").startswith('"') and tag != part.validator)
    ):
        part.restart(None, None)
        raise _Interrupted(f"the server sent another part than was asked for ({given!r})")
    if match[2] != "*":
        part.total = int(match[2])


def _validator(headers: email.message.Message) -> str | None:
    """What If-Range may carry for this answer (RFC 9110, 13.1.5), if anything."""
    tag = headers.get("ETag")
    if tag is not None:
        return tag if tag.startswith('"') else None
    try:
        modified = email.utils.parsedate_to_datetime(headers["Last-Modified"])
        sent = email.utils.parsedate_to_datetime(headers["Date"])
        # A file may change twice within the second that the date stands for (8.8.2.2).
        return headers["Last-Modified"] if (sent - modified).total_seconds() >= 1 else None
    except (TypeError, ValueError):
        return None


def _verify(url: str, part: _Part, size: int | None, sha256: str | None) -> None:
    wrong = None
    if size is not None and part.bytes != size:
        wrong = f"it has {part.bytes} bytes, {size} are expected"
    elif sha256 is not None and (found := part.digest()) != sha256.lower():
        wrong = f"its SHA-256 is {found}, {sha256.lower()} is expected"
    if wrong is None:
        return
    resumed = part.resumed
    part.restart(None, None)
    if resumed:
        # The pieces may not belong together; the whole in one answer will tell.
        raise _Interrupted(f"{wrong}; it is fetched again as a whole")
    raise BadInput(f"{url}: what arrived is not the file that is expected: {wrong}")


def fetch_sentences(url: str, target: Path, *, size: int, max_bytes: int, sha256: str,
                    say: Callable[[str, float | None], None]) -> None:
    """Fetch a text, or the sentences of an archive, and publish them as one file.

    What has arrived is kept where a run ends before it is unpacked.

    Parameters
    ----------
    url : str
        An http or https address.
    target : path
        The file of sentences.
    size, max_bytes : int
        See `download`; 0 for any.
    sha256 : str
        See `download`; empty for any.
    say : function
        Called often with what is being done, and the share that is done where it is known.

    Raises
    ------
    UserError
        As `download`; where it holds no sentences, or several files of them.
    """
    fetched = target.with_name("fetched")
    if not fetched.is_file():  # or else an earlier run was ended while it unpacked
        download(url, fetched, size=size or None, max_bytes=max_bytes or None,
                 sha256=sha256 or None, progress=lambda done, total: say(
                     f"{done:,} bytes have arrived", done / total if total else None))

    def unpacking(share: float) -> None:
        say("unpacking", share)

    try:
        found = (unpack(fetched, target.parent, progress=unpacking) if is_archive(fetched) else
                 [take_text(fetched, target, url, progress=unpacking)])
    except UserError as error:
        # The disk can be full, too: then what was fetched is good.
        if getattr(error.__cause__, "errno", None) is None:
            fetched.unlink(missing_ok=True)
        raise
    if len(found) > 1:
        fetched.unlink()
        raise BadInput(f"{url} holds {len(found)} files of sentences, "
                       f"{found[0].name} and others; name one that holds one")
    os.replace(found[0], target)
    fetched.unlink()
