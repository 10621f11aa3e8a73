"""What has been made of what: fingerprints, receipts, and the reasons for making again.

An artifact is a file whose name holds the fingerprint of its ingredients: digests of the
contents it is made from, the settings that can change its bytes, and the version of the code's
format. When it is finished a receipt is published for it, last: the ingredients, and the
digest of the file. The artifact is complete when its receipt is there and the file is still
what the receipt says. Every step of publishing is atomic, and a crash between the file and its
receipt only makes the same file again.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import json
import os
import platform
import re
import time
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, TypeGuard

from model.system.errors import UserError
from model.system.files import digest_file, look_anew, publish
from model.system.terminal import one_line

# A file modified so shortly before it was read may change again without a new mtime. Most of it is
# for the clock of a file server, which is seldom quite this host's.
_SETTLED_NANOSECONDS = 2_000_000_000


# Of the digests that stand for a part or a vocabulary: few, for people meet them in tasks' names.
DIGEST_DIGITS = 16

# Of the files of a corpus, thousands may have changed.
_PHRASES = 5

# Whose versions a receipt names: what the bytes of artifacts can depend on.
_PACKAGES = ("theano", "lasagne", "numpy", "h5py", "luigi", "polars")

_RECEIPT_KEYS = {"stage", "name", "path", "ingredients", "sha256", "identity", "seconds",
                 "finished", "notes"}


_ONLY_LOOKING = contextvars.ContextVar("only looking", default=False)


@contextlib.contextmanager
def only_looking() -> Iterator[None]:
    """Write nothing of what is found out meanwhile, though it would save time later."""
    token = _ONLY_LOOKING.set(True)
    try:
        yield
    finally:
        _ONLY_LOOKING.reset(token)


def fingerprint(ingredients: dict) -> str:
    """Digest of ingredients: 24 hexadecimal digits, the same for equal content."""
    text = json.dumps(ingredients, sort_keys=True, ensure_ascii=False)
    # File names need not be text: their other bytes are surrogates here.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:24]


class Identity(NamedTuple):
    """What changes when a file is written again, even where its size and its time are set back."""

    size: int
    mtime_ns: int
    inode: int
    device: int
    ctime_ns: int  # which the system alone sets

    def to_keep(self) -> list[int]:
        """What stays the same until the file changes, on all hosts: each numbers devices itself."""
        return [self.size, self.mtime_ns, self.inode, self.ctime_ns]


def identify(path: str | Path) -> Identity:
    """The identity of a file as it is now; OSError where there is none.

    The file is opened for it: a network file system may remember for a minute what it said of a
    file, but asks the server when one is opened (nfs(5), close-to-open cache consistency).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return Identity(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev,
                    status.st_ctime_ns)


class DigestCache:
    """Digests of the user's files, so that an unchanged file is not read again.

    Within one process a file is looked at once: the whole run works on the corpus as it was when
    the run began.

    Parameters
    ----------
    path : path
        A JSON file; a missing or damaged one only costs time.
    """

    def __init__(self, path: Path):
        self._path = path
        self._seen: dict[str, str] = {}
        self._kept: dict[str, dict] | None = None
        self._changed = False

    def digest(self, path: Path, size: int | None = None) -> str:
        """SHA-256 of a file; not read where all that the file system says of it is as before.

        Parameters
        ----------
        path : path
        size : int, optional
            Of how many bytes, where the file may have grown meanwhile.

        Raises
        ------
        FileNotFoundError
        """
        key = os.path.abspath(path)
        if key not in self._seen:
            self._seen[key] = self._look(key, size)
        return self._seen[key]

    def save(self) -> None:
        """Keep the digests for other processes: once for many files, for it writes all of them.

        Those of files that are gone are dropped. Where there is no working folder yet, or it
        cannot be written to, that only costs time.
        """
        if self._changed and self._path.parent.is_dir() and not _ONLY_LOOKING.get():
            self._changed = False
            kept = {key: entry for key, entry in (self._kept or {}).items()
                    if key in self._seen or os.path.exists(key)}
            with contextlib.suppress(UserError), publish(self._path) as temporary:
                temporary.write_text(json.dumps(kept))

    def _look(self, key: str, size: int | None) -> str:
        if self._kept is None:
            self._kept = self._read()
        identity = identify(key)
        if size not in (None, identity.size):
            return digest_file(key, size)
        entry = self._kept.get(key)
        if isinstance(entry, dict) and entry.get("identity") == identity.to_keep() and (
                isinstance(entry.get("sha256"), str)):
            return entry["sha256"]
        digest = digest_file(key, identity.size)
        # Either time may lie ahead, where a clock was wrong.
        settled = min(abs(time.time_ns() - at) for at in (identity.mtime_ns, identity.ctime_ns))
        if settled > _SETTLED_NANOSECONDS and identify(key) == identity:
            self._kept[key] = {"identity": identity.to_keep(), "sha256": digest}
            self._changed = True
        return digest

    def _read(self) -> dict:
        try:
            cache = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return cache if isinstance(cache, dict) else {}


@dataclass(frozen=True)
class Artifact:
    """A file of the job, and what it is made of.

    Parameters
    ----------
    work : path
        The working folder.
    stage : str
        Which kind of artifact, as ``tokens``.
    name : str
        Which one of its kind: receipts of the same stage and name tell what has changed.
    path : path
        Where the file lies.
    ingredients : dict
        JSON values by name; see the module's text.
    """

    work: Path
    stage: str
    name: str
    path: Path
    ingredients: dict

    @classmethod
    def of_receipt(cls, work: Path, receipt: dict) -> Artifact | None:
        """The artifact that a receipt tells of; None where the job has none of such a name.

        Parameters
        ----------
        work : path
            Working folder.
        receipt : dict
            From `receipts`.
        """
        path = Path(receipt["path"])
        artifact = cls(work, receipt["stage"], receipt["name"], work / path,
                       receipt["ingredients"])
        ours = artifact.fingerprint in (path.stem, path.parent.name) or path.parts[0] == "report"
        return artifact if ours and not path.is_absolute() and ".." not in path.parts else None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the ingredients."""
        return fingerprint(self.ingredients)

    @property
    def receipt_path(self) -> Path:
        """Where the receipt lies."""
        return self.work / "receipts" / self.stage / self.name / f"{self.fingerprint}.json"

    def fault(self) -> str | None:
        """Why the artifact has to be made, in one line; None when it is whole.

        It is whole when the file is there, and is what its receipt says.
        """
        receipt = self.receipt()
        if receipt is None:
            newest = max(receipts(self.work, self.stage, self.name), key=by_age, default=None)
            if newest is None:
                return "it was never made"
            return "; ".join(differences(newest["ingredients"], self.ingredients))
        try:
            identity = self._identify().to_keep()
            if identity != receipt["identity"]:
                digest = digest_file(self.path)
                if digest != receipt["sha256"]:
                    return self._why_other_bytes(digest)
                if not _ONLY_LOOKING.get():
                    with contextlib.suppress(UserError):  # it only saves time
                        self._publish({**receipt, "identity": identity})
        except FileNotFoundError:
            return f"{self.path} is gone"
        return None

    def record(self, seconds: float, **notes: object) -> None:
        """Publish the receipt, after the file.

        Parameters
        ----------
        seconds : float
            How long it took to make the file.
        **notes
            JSON values to keep, as counts.
        """
        receipt = {
            "stage": self.stage, "name": self.name, "path": os.path.relpath(self.path, self.work),
            "ingredients": self.ingredients, "sha256": digest_file(self.path),
            "identity": identify(self.path).to_keep(), "seconds": round(seconds, 3),
            "finished": time.time(), "notes": notes, "made_by": makers(),
            # The clock may have been wrong, or will be.
            "sequence": 1 + max((by_age(other)[0] for other in receipts(
                self.work, self.stage, self.name)), default=0),
        }
        self._publish(receipt)

    def receipt(self) -> dict | None:
        """The receipt's content; None when there is none, or it cannot be read."""
        receipt = _read_receipt(self.receipt_path)
        if receipt is None:  # another host may have made it a moment ago
            look_anew(self.receipt_path.parent, self.work)
            receipt = _read_receipt(self.receipt_path)
        return receipt

    def _identify(self) -> Identity:
        try:
            return identify(self.path)
        except FileNotFoundError:
            look_anew(self.path.parent, self.work)
            return identify(self.path)

    def _why_other_bytes(self, digest: str) -> str:
        """Why the file is not what the receipt says: another run made it, or it is damaged."""
        for other in receipts(self.work, self.stage, self.name):
            if other["sha256"] == digest:
                return "; ".join(differences(other["ingredients"], self.ingredients))
        return f"{self.path} is damaged: its bytes are not those that were made"

    def _publish(self, receipt: dict) -> None:
        with publish(self.receipt_path) as temporary:
            temporary.write_text(json.dumps(receipt, indent=1))


@functools.cache
def makers() -> dict:
    """The programs and the machine at work: none of them is an ingredient, all are asked for."""
    versions = {name: metadata.version(name) for name in _PACKAGES}
    try:
        model = re.search("^model name\\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        model = None
    return {"python": platform.python_version(), **versions,
            "processor": model[1] if model else platform.machine(),
            "threads": int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))}


def receipts(work: Path, stage: str = "*", name: str = "*") -> Iterator[dict]:
    """Receipts, in no order; what is no receipt is left out.

    Parameters
    ----------
    work : path
        Working folder.
    stage, name : str
        Of the artifacts; all without.

    Yields
    ------
    dict
        As `Artifact.record` publishes it.
    """
    for path in (work / "receipts").glob(f"{stage}/{name}/*.json"):
        receipt = _read_receipt(path)
        if receipt is not None:
            yield receipt


def remove_others(work: Path, stage: str, kept: Container[Path]) -> None:
    """Remove all artifacts of a stage, and their receipts, but those that lie at some paths."""
    for receipt in list(receipts(work, stage)):
        artifact = Artifact.of_receipt(work, receipt)
        if artifact is not None and artifact.path not in kept:
            artifact.path.unlink(missing_ok=True)
            artifact.receipt_path.unlink(missing_ok=True)


def by_age(receipt: dict) -> tuple[int, float]:
    """A key that sorts receipts of one stage and name, the newest last.

    By their own count; those from before there was one by the clock.
    """
    return receipt.get("sequence", 0), receipt["finished"]


def _read_receipt(path: Path) -> dict | None:
    try:
        receipt = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(receipt, dict) and receipt.keys() >= _RECEIPT_KEYS
    return receipt if whole else None


def differences(before: dict, now: dict) -> list[str]:
    """What differs between two sets of ingredients, a phrase for each."""
    phrases = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            below = [f"{key}: {phrase}" for phrase in differences(old, new)]
            phrases += below[:_PHRASES]
            if len(below) > _PHRASES:
                phrases.append(f"{key}: {len(below) - _PHRASES:,} more differ")
        elif isinstance(old, list) and isinstance(new, list):
            # Sorted: their order is no ingredient, but how often each is there.
            added, removed = Counter(new) - Counter(old), Counter(old) - Counter(new)
            phrases.append(f"{key}: {added.total()} new, {removed.total()} gone")
        elif old is None:
            phrases.append(f"{key} is new")
        elif new is None:
            phrases.append(f"{key} is gone")
        elif is_digest(old) and is_digest(new):
            phrases.append(f"{key} changed")
        else:
            phrases.append(f"{key} is {new}, was {old}")
    return list(map(one_line, phrases))


def is_digest(value: object) -> TypeGuard[str]:
    """Whether an ingredient is a digest: of a part's text, of ingredients, or of a file."""
    return isinstance(value, str) and len(value) in (DIGEST_DIGITS, 24, 64) and set(value) <= set(
        "0123456789abcdef")
