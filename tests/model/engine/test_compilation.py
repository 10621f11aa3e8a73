"""Theano compiles with the settings, in the folder and with the errors that it is given."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model import engine  # noqa: F401  isort: skip

import theano
import theano.tensor as T

from tests.model.engine.test_remedies import run


def test_a_matrix_product_goes_through_the_packages_blas():
    a = np.arange(6, dtype="float32").reshape(2, 3)
    x = T.fmatrix("x")
    function = theano.function([x], T.dot(x, x.T))
    np.testing.assert_array_equal(function(a), a @ a.T)
    assert "scipy_sgemm_" in theano.config.blas.ldflags
    assert "scipy_openblas" in Path("/proc/self/maps").read_text()


def test_the_compile_cache_is_in_the_working_folder():
    assert Path(theano.config.base_compiledir) == Path(
        os.environ["PIPELINE_WORK"]).resolve() / "theano"


def test_headers_are_compiled_once_and_a_damaged_result_does_no_harm(tmp_path):
    code = ("import model.engine, theano, theano.tensor as T; x, n = T.vector(), T.iscalar();"
            "print(*(theano.function([x, n], y)([1, 2, 3], 2).tolist()"
            "        for y in (x * n, x[n], x.sum() + n, x - n)))")
    environment = {**os.environ, "PIPELINE_WORK": str(tmp_path), "THEANO_FLAGS": ""}
    want = "[2.0, 4.0, 6.0] 3.0 8.0 [-1.0, 0.0, 1.0]"
    assert run(code, env=environment).splitlines()[-1] == want
    compiled, = (tmp_path / "theano" / "headers").glob("*.h.gch")
    compiled.write_bytes(compiled.read_bytes()[:1 << 20])
    for folder in (tmp_path / "theano").glob("compiledir_*"):
        shutil.rmtree(folder)
    assert run(code, env=environment).splitlines()[-1] == want
    assert not compiled.exists()  # GCC had tried to read it


def test_many_processes_share_what_a_killed_one_has_left(tmp_path):
    """Each compiles all modules; Theano's own lock let one remove another's, or its module."""
    environment = {**os.environ, "PIPELINE_WORK": str(tmp_path), "THEANO_FLAGS": ""}
    killed = ("import os, signal, model.engine; from theano.gof import compilelock;"
              "compilelock.get_lock(); os.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run([sys.executable, "-c", killed], env=environment).returncode == -9
    lock = tmp_path / "theano" / ".locked-by"
    assert lock.exists()
    code = ("import model.engine, theano, theano.tensor as T; x = T.vector();"
            "print(*(theano.function([x], y)([1, 2, 3]).tolist()"
            "        for y in (x + 1, x * x, x.sum())))")
    processes = [subprocess.Popen([sys.executable, "-c", code], env=environment, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                 for _ in range(4)]
    for each in processes:
        output, error = each.communicate()
        assert output == "[2.0, 3.0, 4.0] [1.0, 4.0, 9.0] 6.0\n" and not error
    assert not lock.exists()


def test_a_second_process_compiles_nothing(tmp_path):
    """Theano compiles the first four kinds in each process: no properties, or a hash of code."""
    code = """
from model import engine
import theano, theano.tensor as T
from theano.gof import cc
from model.engine.update_op import sum_of_squares
x, n = T.vector(), T.iscalar()
for y in (x.dimshuffle("x", 0), T.alloc(x.sum(), n, n), sum_of_squares(x), x, x * n):
    print(theano.function([x, n], y, on_unused_input="ignore")([1, 2], 2).tolist(), end=" ")
_, loaded, compiled = cc.get_module_cache().stats
print(loaded, compiled)
"""
    environment = {**os.environ, "PIPELINE_WORK": str(tmp_path), "THEANO_FLAGS": ""}
    values = "[[1.0, 2.0]] [[3.0, 3.0], [3.0, 3.0]] 5.0 [1.0, 2.0] [2.0, 4.0] "
    first = run(code, env={**environment, "PYTHONHASHSEED": "1"})
    second = run(code, env={**environment, "PYTHONHASHSEED": "2"})
    assert first.startswith(values) and second.startswith(values)
    compiled = first.split()[-1]
    assert int(compiled) >= 5 and second.split()[-2:] == [compiled, "0"]


# Both functions have the same module: the second one adds its key to that of the first.
_TWO_KEYS = """
from model import engine
import os, pickle, shutil, subprocess, sys
from pathlib import Path
import theano, theano.tensor as T

def first():
    x = T.vector()
    return theano.function([x], x.dimshuffle("x", 0))([1]).tolist()

def second():
    x = T.vector()
    return theano.function([x], x.dimshuffle(0, "x"))([1, 2]).tolist()

def modules():
    return sorted(path.parent for path in Path(theano.config.compiledir).glob("tmp*/key.pkl"))
"""


def test_a_process_that_starts_while_another_keeps_a_module_does_not_remove_it(tmp_path):
    """It found an empty file of keys, and took the module for broken."""
    environment = {**os.environ, "PIPELINE_WORK": str(tmp_path), "THEANO_FLAGS": ""}
    other = _TWO_KEYS + "print(first())"
    code = _TWO_KEYS + f"""
from theano.gof import cc
print(first())
before, dump = modules(), pickle.dump

def interrupted(*arguments, **options):
    pickle.dump = dump
    other = subprocess.run([sys.executable, "-c", {other!r}], text=True, capture_output=True)
    print(other.stdout + other.stderr, end="")
    dump(*arguments, **options)

pickle.dump = interrupted
for data in cc.get_module_cache().module_hash_to_key_data.values():
    if Path(data.key_pkl).exists():
        data.save_pkl()  # as `second` does, but without the lock that the other one takes too
print(second())
print(len(before), modules() == before)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                          text=True)
    assert done.stdout.splitlines() == ["[[1.0]]", "[[1.0]]", "[[1.0], [2.0]]", "2 True"]
    assert not done.stderr


def test_a_module_that_is_gone_is_compiled_again_even_if_it_is_loaded(tmp_path):
    environment = {**os.environ, "PIPELINE_WORK": str(tmp_path), "THEANO_FLAGS": ""}
    code = _TWO_KEYS + """
from theano.gof import cc
print(first())
before = modules()
for module in before:
    shutil.rmtree(module)
print(second(), first())
print(len(before), len(modules()), modules() == before)
# All at once; another module is asked for first.
shutil.rmtree(theano.config.base_compiledir)
x = T.vector()
print(theano.function([x], x * 2)([1]).tolist(), second(), first())
# The folder comes back, as one on another host can, after it was missed.
folder = Path(theano.config.compiledir)
folder.rename(folder.with_name("away"))
cc.get_module_cache().refresh()
folder.with_name("away").rename(folder)
print(second(), first())
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                          text=True)
    assert done.stdout.splitlines() == [
        "[[1.0]]", "[[1.0], [2.0]] [[1.0]]", "2 2 False",
        "[2.0] [[1.0], [2.0]] [[1.0]]", "[[1.0], [2.0]] [[1.0]]"]
    assert not done.stderr
    # It is gone after another process has read of it, and before that one loads it.
    shutil.rmtree(tmp_path)
    code = _TWO_KEYS + """
from theano.gof import cc
cc.get_module_cache()
for module in modules():
    shutil.rmtree(module)
print(first(), len(modules()))
"""
    assert run(_TWO_KEYS + "print(first())", env=environment) == "[[1.0]]"
    assert run(code, env=environment) == "[[1.0]] 2"


def test_a_folder_that_vanishes_while_it_is_read_is_passed_over(tmp_path):
    environment = {**os.environ, "PIPELINE_WORK": str(tmp_path), "THEANO_FLAGS": ""}
    code = _TWO_KEYS + """
from theano.gof import cmodule
last_access_time = cmodule.last_access_time

def removed(path):
    cmodule.last_access_time = last_access_time
    shutil.rmtree(Path(path).parent)
    return last_access_time(path)

cmodule.last_access_time = removed
print(first(), len(modules()))
"""
    assert run(_TWO_KEYS + "print(first())", env=environment) == "[[1.0]]"
    assert run(code, env=environment) == "[[1.0]] 2"


def test_a_key_that_could_not_be_kept_can_be_kept_later(tmp_path):
    environment = {**os.environ, "PIPELINE_WORK": str(tmp_path), "THEANO_FLAGS": ""}
    code = _TWO_KEYS + """
import errno
dump = pickle.dump

def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")

def without_room(function):
    pickle.dump = full
    try:
        function()
    except engine.CannotCompile as error:
        print(error.reason)
    pickle.dump = dump

without_room(first)
print(list(Path(theano.config.compiledir).glob("tmp*")))
print(first())
without_room(second)
print(second())
"""
    assert run(code, env=environment).splitlines() == [
        "[Errno 28] No space left on device", "[]", "[[1.0]]",
        "[Errno 28] No space left on device", "[[1.0], [2.0]]"]


def test_a_failed_compilation_leaves_no_lock_and_cleaning_up_at_the_end_no_traceback(tmp_path):
    environment = {**os.environ, "PIPELINE_WORK": str(tmp_path), "THEANO_FLAGS": ""}
    code = ("import os\n"
            "from pathlib import Path\n"
            "from model import engine\n"
            "import theano, theano.tensor as T\n"
            "from theano.gof import cmodule\n"
            "class Wrong(theano.Op):\n"
            " def make_node(self, x): return theano.Apply(self, [x], [x.type()])\n"
            " def c_code(self, *_): return '\\n#error wrong'\n"
            "x = T.vector()\n"
            "try: theano.function([x], Wrong()(x))\n"
            "except Exception as error: print(type(error).__name__)\n"
            "cache = Path(theano.config.base_compiledir)\n"
            "print((cache / '.locked-by').exists())\n"
            "print(theano.function([x], x + 1)([1]).tolist())\n"
            # As if another process had removed it in this moment.
            "other = Path(theano.config.compiledir, 'tmp_of_another')\n"
            "other.mkdir()\n"
            "(other / 'mod.cpp').touch()\n"
            "def gone(path): raise FileNotFoundError(2, 'No such file or directory', path)\n"
            "cmodule.last_access_time = gone\n")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                          text=True)
    assert done.stdout.splitlines() == ["CannotCompile", "False", "[2.0]"]
    assert not done.stderr and done.returncode == 0


# The disk is full while Theano itself is compiled, a module is linked, a key is written.
@pytest.mark.parametrize("size", [4, 60, 160, 240, 500])
def test_a_full_disk_while_compiling_is_one_clear_error(full_disk, size):
    folder = full_disk(size)
    code = ("from model.system.files import UserError\n"
            "try:\n"
            " from model import engine\n"
            " import theano, theano.tensor as T\n"
            " x, y = T.matrices(2)\n"
            " for n in range(4):\n"
            "  theano.function([x, y], T.tanh(x * n + T.exp(y)) + T.dot(x, y).sum())\n"
            "except UserError as error: print(error)")
    environment = {**os.environ, "PIPELINE_WORK": str(folder / "work"), "THEANO_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Theano cannot compile the network: ")
    assert "No space left on device" in done.stdout and str(folder) in done.stdout
    assert done.stdout.count("\n") == 1 and "Traceback" not in done.stderr


# As a lawful name can be; what Theano reads its settings with knows quotes, commas and comments.
@pytest.mark.parametrize("name", ["""a, b #'"$`%(x)s\\\\ =;*é\n~""", " x "])
def test_any_name_of_a_working_folder_will_do(tmp_path, name):
    code = ("import os, model.engine, theano; print(theano.config.base_compiledir =="
            "os.path.join(os.environ['PIPELINE_WORK'], 'theano'))")
    environment = {**os.environ, "PIPELINE_WORK": str(tmp_path / name), "THEANO_FLAGS": ""}
    assert run(code, env=environment).splitlines()[-1] == "True"


def test_settings_of_theanos_that_are_the_users_are_not_obeyed(tmp_path):
    (tmp_path / ".theanorc").write_text("[global]\nfloatX = float64\n")
    code = "import model.engine, theano; print(theano.config.floatX, theano.config.optimizer)"
    environment = {**os.environ, "HOME": str(tmp_path), "PIPELINE_WORK": str(tmp_path),
                   "PIPELINE_ENVIRONMENT": "", "THEANO_FLAGS": "floatX=float64,optimizer=None"}
    assert run(code, env=environment) == "float32 o4"


def test_a_compile_cache_that_cannot_be_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    code = ("from model.system.files import UserError\ntry: import model.engine\n"
            "except UserError as error: print(error)")
    environment = {**os.environ, "PIPELINE_WORK": str(tmp_path / "file")}
    assert "where you may not write" in run(code, env=environment)
