"""Files that others made: nothing in them ends the program or is taken for what it is not.

A seal (see `model.system.hdf5`) tells that a file is whole, not who made it. The HDF5 library
crashes, or never comes to an end, on some files that were made to that purpose; so a file that
somebody names is read in a process of its own first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

import h5py
import numpy as np

from . import environment
from .errors import DamagedFile, UserError

# By the name that the project's folder has here.
_TRIAL = f"{__name__.removesuffix('.system.untrusted')}.trial"
_LONGEST_SECONDS = 60  # of processor time; a checkpoint of a gigabyte takes two


def try_out(path: str | os.PathLike, seconds: int = _LONGEST_SECONDS) -> None:
    """Read a shard or a checkpoint in a process of its own, and see whether it survives.

    Parameters
    ----------
    path : path
    seconds : int
        Of processor time that it is given.

    Raises
    ------
    UserError
        When it does not.
    """
    done = subprocess.run(
        [*environment.module_command(_TRIAL), path, str(seconds), str(os.getpid())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if done.returncode < 0:
        raise UserError(
            f"{path} cannot be read: it ends a process that reads it "
            f"({signal.Signals(-done.returncode).name}). It is damaged in a way that its seal "
            "does not show, or was made to do harm")


@contextlib.contextmanager
def odd_content(path: str | os.PathLike, kind: str) -> Iterator[None]:
    """Within it, whatever the content of a file of some kind leads to is a `DamagedFile`."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError,
            TypeError, ValueError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # it is the disk that fails, or the permission that lacks
        words = str(error) if isinstance(error, ValueError) else repr(error)
        raise DamagedFile(path, f"it is no {kind} ({words})") from error


def array(group: h5py.Group, name: str, kinds: str, dimensions: int | None = None) -> np.ndarray:
    """A dataset's content; see `dataset`."""
    return dataset(group, name, kinds, dimensions)[()]


def dataset(group: h5py.Group, name: str, kinds: str, dimensions: int | None = None
            ) -> h5py.Dataset:
    """A dataset of which all lies in the file as it is.

    Not in other files, which HDF5 can refer to, and not in a form that unpacks to any size.

    Parameters
    ----------
    group : h5py.Group
    name : str
    kinds : str
        What its type may be, as numpy's `dtype.kind`.
    dimensions : int, optional
        How many it must have; by default any number.

    Raises
    ------
    ValueError
        When there is none of this kind.
    """
    link = group.get(name, getlink=True)
    found = group[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"no dataset {name}")
    if found.dtype.kind not in kinds or dimensions not in (None, len(found.shape)):
        raise ValueError(f"{name} has the type {found.dtype} and the shape {found.shape}")
    storage = found.id.get_create_plist()
    if (storage.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
            or storage.get_external_count() or found.id.get_storage_size() != found.nbytes):
        raise ValueError(f"{name} does not lie in the file as it is")
    return found
