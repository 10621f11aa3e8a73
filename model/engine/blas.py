"""OpenBLAS from the package scipy-openblas32, with kernels that suit the processor."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


def load_openblas() -> ctypes.CDLL | None:
    """Load the library for all code of this process; None where the package is missing.

    Its symbols carry the prefix ``scipy_``, so that it can live beside the BLAS that numpy brings.
    """
    try:
        import scipy_openblas32
    except ImportError:
        return None
    if _is_amd_with_avx512():
        # OpenBLAS does not know the newest of them and takes kernels of half the speed.
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")
    folder, name = scipy_openblas32.get_lib_dir(), scipy_openblas32.get_library()
    return ctypes.CDLL(str(Path(folder) / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL)


def _is_amd_with_avx512() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in text and " avx512f " in text
