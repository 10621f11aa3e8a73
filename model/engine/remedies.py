"""Theano 1.0.5 and Lasagne 0.1 on Python 3.10 to 3.12: to be imported before either of them.

Both libraries are the last releases of their line and predate these Pythons. Everything they
need is done here, before they are imported; nothing is edited in their folders. Each remedy
names what breaks without it. How Theano then compiles is said in `model.engine.compilation`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Iterator

from model.engine.compilation import (
    CannotCompile,
    compiling,
    configure,
    explain_failures,
    keep_modules,
    lock_compile_cache,
    precompile_headers,
    share_modules,
)

# Scalar aliases that numpy 1.24 removed; Theano 1.0.5 and Lasagne 0.1 use them.
_NUMPY_ALIASES = {"bool": bool, "int": int, "float": float, "object": object,
                  "complex": complex, "str": str}


def _module(name: str, **content: object) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module
    return module


def _remedy_python() -> None:
    if sys.version_info >= (3, 12):
        # distutils is gone from the standard library; setuptools brings its own copy, which
        # theano.gof.cmodule finds under the old name.
        import setuptools  # noqa: F401

        # So is imp, of which the module that scan's rewrites of a graph import uses one function.
        _module("imp", reload=importlib.reload)
    if sys.version_info >= (3, 11):
        # The C source of scan's loop that Theano ships includes longintrepr.h, gone in 3.11.
        # Without the module Theano takes its own loop in Python; each step stays compiled.
        sys.modules["theano.scan_module.scan_perform_ext"] = None  # type: ignore[assignment]
    if importlib.util.find_spec("pkg_resources") is None:
        # setuptools 82 dropped it; Lasagne asks it for its own version.
        _module("pkg_resources", get_distribution=importlib.metadata.distribution,
                DistributionNotFound=importlib.metadata.PackageNotFoundError)


@contextlib.contextmanager
def _without_mpi() -> Iterator[None]:
    """Theano imports mpi4py for operations that send arrays, and dies where that finds no library.

    Where it finds one, every process that imports Theano would start MPI.
    """
    there = sys.modules.get("mpi4py")
    sys.modules["mpi4py"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["mpi4py"]
        if there is not None:
            sys.modules["mpi4py"] = there


def _remedy_numpy() -> None:
    import numpy

    for name, alias in _NUMPY_ALIASES.items():
        if name not in numpy.__dict__:
            setattr(numpy, name, alias)
    if sys.version_info >= (3, 12):
        # numpy builds no numpy.distutils for Python 3.12; Theano asks it where numpy's headers
        # are and how numpy was linked.
        configuration = _module("numpy.distutils.__config__", blas_opt_info={})
        utilities = _module("numpy.distutils.misc_util",
                            get_numpy_include_dirs=lambda: [numpy.get_include()])
        information = _module("numpy.distutils.system_info", get_info=lambda *_: {})
        package = _module("numpy.distutils", __path__=[], __config__=configuration,
                          misc_util=utilities, system_info=information)
        numpy.distutils = package  # type: ignore[attr-defined]


def _remedy_lasagne() -> None:
    # Theano 0.9 dropped theano.tensor.signal.downsample, which Lasagne 0.1 imports for its
    # pooling layers.
    from theano.tensor import signal
    from theano.tensor.signal import pool

    signal.downsample = _module("theano.tensor.signal.downsample", max_pool_2d=pool.pool_2d)


def _import() -> None:
    if "theano" in sys.modules:
        raise ImportError("import model.engine before theano and lasagne")
    with warnings.catch_warnings():
        # Both libraries' sources use escapes and modules that newer Pythons warn about.
        warnings.simplefilter("ignore")
        _remedy_python()
        _remedy_numpy()
        configure()
        try:
            with compiling(), contextlib.redirect_stdout(io.StringIO()), _without_mpi():
                import theano  # noqa: F401
        except (ImportError, CannotCompile):
            raise
        except Exception as error:  # it compiles some code of its own
            raise CannotCompile(error) from error

        _remedy_lasagne()
        lock_compile_cache()
        share_modules()
        keep_modules()
        precompile_headers()
        explain_failures()
        import lasagne  # noqa: F401


_import()
