"""Each remedy is still needed, and together they are enough."""

import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest

from model import engine  # noqa: F401  isort: skip

import theano
import theano.tensor as T

from model.engine import remedies


def installed(package, path):
    return Path(str(distribution(package).locate_file(path)))


def test_lasagne_still_asks_for_what_theano_dropped():
    assert "signal import downsample" in installed("Lasagne", "lasagne/layers/pool.py").read_text()
    assert not installed("Theano", "theano/tensor/signal/downsample.py").exists()


def test_numpy_still_lacks_the_aliases():
    names = sorted(remedies._NUMPY_ALIASES)
    code = f"import numpy; print([n for n in {names} if n not in numpy.__dict__])"
    assert run(code) == str(names)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 still has the header")
def test_python_still_lacks_the_header_of_scan():
    assert "longintrepr.h" in installed(
        "Theano", "theano/scan_module/c_code/scan_perform.c").read_text()
    assert not (Path(sysconfig.get_path("include")) / "longintrepr.h").exists()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="older Pythons still have distutils")
def test_python_still_lacks_modules_that_theano_imports():
    assert not (Path(sysconfig.get_path("stdlib")) / "distutils").exists()
    assert not (Path(sysconfig.get_path("stdlib")) / "imp.py").exists()
    assert "import imp" in installed("Theano", "theano/tests/breakpoint.py").read_text()
    assert not installed("numpy", "numpy/distutils").exists()


def test_lasagne_still_asks_setuptools_for_its_version():
    assert "pkg_resources" in installed("Lasagne", "lasagne/__init__.py").read_text()


def test_the_engine_refuses_to_come_second():
    code = "import sys; sys.modules['theano'] = sys; import model.engine"
    with pytest.raises(subprocess.CalledProcessError):
        run(code)


def test_scan_and_its_gradient_work_with_every_rewrite_of_the_graph():
    with theano.configparser.change_flags(on_opt_error="raise", floatX="float64"):
        x = T.dvector("x")
        total, _ = theano.scan(lambda value, before: before * value, x,
                               outputs_info=T.constant(1.0, dtype="float64"))
        gradient = theano.function([x], T.grad(total[-1], x))
    np.testing.assert_allclose(gradient([2.0, 3.0, 5.0]), [15.0, 10.0, 6.0])


def run(code, **options):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True,
                          text=True, **options).stdout.strip()


@pytest.mark.parametrize("library", ["there is none", "there is one"])
def test_mpi4py_in_the_environment_changes_nothing(tmp_path, library):
    """As mpi4py does: without a library it fails with RuntimeError, with one it starts MPI."""
    assert "from mpi4py import MPI" in installed("Theano", "theano/tensor/io.py").read_text()
    package = tmp_path / "mpi4py"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "MPI.py").write_text(
        "print('MPI starts')\n" if library == "there is one" else
        "raise RuntimeError('cannot load MPI library')\n")
    told = (f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from model import engine;"
            "from theano.tensor import io; print(io.mpi_enabled, 'mpi4py.MPI' in sys.modules);"
            "import mpi4py; print(mpi4py.__file__)")
    assert run(told).splitlines() == ["False False", str(package / "__init__.py")]
    # And where a process speaks to others already, it keeps what it has imported.
    if library == "there is one":
        kept = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from mpi4py import MPI;" \
               "from model import engine; import mpi4py; print(mpi4py.MPI is MPI)"
        assert run(kept).splitlines() == ["MPI starts", "True"]


@pytest.mark.extras
def test_the_real_mpi4py_is_not_started():
    pytest.importorskip("mpi4py", reason="MPI is not there; make test-extras installs it")
    assert run("from model import engine; import theano, sys;"
               "print([name for name in sys.modules if name.startswith('mpi4py')])") == "[]"
