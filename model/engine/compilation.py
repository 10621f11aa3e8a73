"""How Theano compiles: its flags, its cache, and failures as one error for people.

Theano is configured for single precision, with its compile cache in the working folder, BLAS from
the package scipy-openblas32, and headers that are compiled once. The environment variable
``PIPELINE_WORK`` names the working folder (default ``data/work``). What ``THEANO_FLAGS`` and a
file ``.theanorc`` say is not obeyed, unless ``PIPELINE_ENVIRONMENT=keep`` lets ``THEANO_FLAGS`` go
before what is said here.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from model.engine.blas import load_openblas
from model.system import environment
from model.system.errors import UserError
from model.system.files import publish
from model.system.folders import check_owner, check_programs
from model.system.locks import holding

# The BLAS routines that Theano's generated code calls.
_BLAS_ROUTINES = ("gemm", "gemv", "ger", "dot", "axpy", "scal", "copy", "swap", "nrm2", "asum")

# What the C++ code of Theano's modules includes.
_HEADERS = "".join(f"#include <{name}>\n" for name in (
    "Python.h", "iostream", "math.h", "numpy/arrayobject.h", "numpy/arrayscalars.h", "vector",
    "algorithm"))


def _blas_flags() -> str | None:
    """Compiler flags that name the routines of scipy-openblas32, which is loaded here.

    The loader resolves them in compiled modules by the copy loaded here. Nothing is linked: the
    modules need no run path, and the folder may have blanks in its name, which Theano's reading
    of linker flags does not allow. Returns None without the package: Theano then goes through
    numpy's own BLAS, which is right but 15 to 20 % slower.
    """
    if load_openblas() is None:
        warnings.warn("the package scipy-openblas32 is missing: training works but is slower; "
                      "'make run' installs it", stacklevel=2)
        return None
    return " ".join(f"-D{kind}{routine}_=scipy_{kind}{routine}_"
                    for routine in _BLAS_ROUTINES for kind in "sd")


def configure() -> None:
    cache = Path(environment.work_folder()).resolve() / "theano"
    check_programs(cache)
    try:
        check_owner(cache)
        cache.mkdir(parents=True, exist_ok=True)
        writable = os.access(cache, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(f"Theano compiles the network into {cache}, where you may not write: name "
                        "a working folder of your own, with PIPELINE_WORK=FOLDER before the "
                        "command")
    try:
        with tempfile.TemporaryFile(dir=cache) as probe:
            probe.write(bytes(_LEAST_ROOM))
    except OSError as error:
        # Theano takes a lock that it had no room to write for that of another process, and waits.
        raise CannotCompile(error) from error
    flags = {
        "device": "cpu",
        "floatX": "float32",
        "base_compiledir": str(cache),
    }
    blas = _blas_flags()
    if blas is not None:
        flags["blas.ldflags"] = blas
    # Theano reads them as a shell reads words, with commas for blanks.
    settings = [shlex.quote(f"{key}={value}") for key, value in flags.items()]
    given = os.environ.get("THEANO_FLAGS", "") if environment.is_kept() else ""
    os.environ["THEANO_FLAGS"] = ",".join(filter(None, [*settings, given]))
    os.environ["THEANORC"] = os.devnull


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Hold the lock of the compile cache; wait while another process holds it."""
    try:
        with holding(_cache() / ".locked-by", lambda holder: None):
            yield
    except OSError as error:
        raise CannotCompile(error) from error


def lock_compile_cache() -> None:
    """Let Theano take the lock of `compiling` in place of its own.

    That one does not hold where a killed process has left it: of those that find it, each takes it
    away, and the second takes that of the first. So do two hosts, or containers, of one name.
    """
    from theano.gof import compilelock
    from theano.gof.cmodule import ModuleCache

    held = contextlib.ExitStack()
    # Theano counts how often it has taken the lock, and calls these for the first and the last.
    compilelock.lock = lambda lock_dir, **_: held.enter_context(compiling())
    compilelock.Unlocker.unlock = lambda self, force=False: held.close()
    compilelock.refresh_lock = lambda lock_file: None

    @contextlib.contextmanager
    def lock_ctx(lock_dir=None, keep_lock=False, **_):
        compilelock.get_lock(lock_dir=lock_dir)
        try:
            yield
        except BaseException:  # Theano would keep it, and others wait
            compilelock.release_lock()
            raise
        if not keep_lock:
            compilelock.release_lock()

    compilelock.lock_ctx = lock_ctx
    clean_up = ModuleCache._on_atexit

    def clean_up_at_exit(cache):
        # Several may end at once, and each finds what another removes. The next one tries again.
        with contextlib.suppress(OSError):
            clean_up(cache)

    ModuleCache._on_atexit = clean_up_at_exit


def share_modules() -> None:
    """Let processes that use one compile cache neither remove nor miss each other's modules.

    Theano writes the keys of a module in place: a process that starts in that moment reads an
    empty file, takes the module for broken and removes it. The other one, which had loaded it,
    then fails as soon as it has a key to add. Here a file of keys is replaced, and a module that
    is gone is compiled again: Theano removes old ones, too.
    """
    from theano.gof.cmodule import KeyData, ModuleCache

    def save_pkl(self):
        temporary = f"{self.key_pkl}.new"  # the lock is held
        with open(temporary, "wb") as file:
            pickle.dump(self, file, protocol=pickle.HIGHEST_PROTOCOL)
        os.replace(temporary, self.key_pkl)

    def add_key(self, key, save_pkl=True):
        self.keys.add(key)  # it may be there, since it could not be saved
        if save_pkl:
            self.save_pkl()

    KeyData.save_pkl = save_pkl
    KeyData.add_key = add_key
    module_from_key, refresh = ModuleCache.module_from_key, ModuleCache.refresh
    add_to_cache = ModuleCache._add_to_cache

    def forget_gone(cache):
        gone = [data for data in cache.module_hash_to_key_data.values()
                if not os.path.exists(data.get_entry())]
        for data in gone:
            del cache.module_hash_to_key_data[data.module_hash]
            data.delete_keys_from(cache.entry_from_key)
            cache.module_from_name.pop(data.get_entry(), None)
            cache.loaded_key_pkl.discard(data.key_pkl)
        return bool(gone)

    def find_or_compile(cache, *arguments, **options):
        os.makedirs(cache.dirname, exist_ok=True)
        try:
            return module_from_key(cache, *arguments, **options)
        except (OSError, ImportError):
            if not forget_gone(cache):
                raise
            return module_from_key(cache, *arguments, **options)

    def read_folder(cache, *arguments, **options):
        forget_gone(cache)
        for _ in range(8):
            # Between listing the folder and reading it others may remove what they compiled.
            with contextlib.suppress(FileNotFoundError):
                return refresh(cache, *arguments, **options)
        return refresh(cache, *arguments, **options)

    def keep_whole(cache, module, *arguments):
        try:
            return add_to_cache(cache, module, *arguments)
        except OSError:  # without its key nobody finds it, and a full disk stays full
            shutil.rmtree(os.path.dirname(module.__file__), ignore_errors=True)
            raise

    ModuleCache.module_from_key = find_or_compile
    ModuleCache.refresh = read_folder
    ModuleCache._add_to_cache = keep_whole


def keep_modules() -> None:
    """Let a process find what an earlier one has compiled, whatever Theano's operations are.

    Theano compiles some anew in each process: those that have no properties, which it takes for
    those without a version, and those whose version is the hash of their code, for Python gives a
    text another hash in each process.
    """
    from theano.gof.cc import CLinker
    from theano.gof.op import COp

    cmodule_key = CLinker.cmodule_key_

    def key_with_version(linker, fgraph, *arguments, **options):
        key = cmodule_key(linker, fgraph, *arguments, **options)
        if key is None or key[0]:
            return key
        version = []
        for node in linker.schedule(fgraph):
            version.append(node.op.c_code_cache_version_apply(node))
            version.extend(variable.type.c_code_cache_version()
                           for variable in node.inputs + node.outputs)
        return (tuple(version) if all(version) else (), key[1])

    def version_of_code(op):
        digest = hashlib.sha256("\0".join(op.func_codes).encode()).hexdigest()
        version = (int(digest[:16], 16), )
        if hasattr(op, "params_type"):
            version += (op.params_type.c_code_cache_version(), )
        return version

    CLinker.cmodule_key_ = key_with_version
    COp.c_code_cache_version = version_of_code


def precompile_headers() -> None:
    """Let GCC read the headers of Theano's modules once, and not for each of some thirty modules.

    Reading them is more than half of the time that a module takes. Where what is precompiled does
    not fit, GCC passes over it and reads the headers themselves.
    """
    import numpy
    import theano
    from theano.gof.cmodule import GCC_compiler, gcc_version, std_include_dirs

    compile_module = GCC_compiler.compile_str
    met: set[tuple[str, ...]] = set()

    def compile_str(*arguments, preargs=(), **options):
        flags = tuple(preargs)
        compiled = precompiled(flags) if flags in met else None  # a module alone is not worth it
        met.add(flags)
        if compiled is None or not compiled.exists():
            return compile_module(*arguments, preargs=list(flags), **options)
        try:
            header = str(compiled.with_suffix(""))
            return compile_module(*arguments, preargs=[*flags, "-include", header], **options)
        except Exception:
            module = compile_module(*arguments, preargs=list(flags), **options)
            compiled.unlink(missing_ok=True)  # it was damaged; the next process makes it anew
            return module

    @functools.cache
    def precompiled(flags: tuple[str, ...]) -> Path:
        folders = [path for path in std_include_dirs() if path]
        compiler = shutil.which(theano.config.cxx)
        origin = repr((compiler, compiler and os.stat(compiler).st_mtime_ns, gcc_version(),
                       sys.version, numpy.__version__, folders, flags))
        name = hashlib.sha256(origin.encode()).hexdigest()[:16]
        header = Path(theano.config.base_compiledir) / "headers" / f"{name}.h"
        compiled = header.with_name(f"{header.name}.gch")
        if not compiled.exists():
            with contextlib.suppress(UserError, subprocess.CalledProcessError):
                with publish(header) as temporary:
                    temporary.write_text(_HEADERS)
                with publish(compiled) as temporary:
                    subprocess.run(
                        [theano.config.cxx, "-g", *flags, *(f"-I{path}" for path in folders),
                         "-fvisibility=hidden", "-x", "c++-header", str(header),
                         "-o", str(temporary)], check=True, capture_output=True)
        return compiled

    GCC_compiler.compile_str = staticmethod(compile_str)


class CannotCompile(UserError):
    """Theano cannot compile a function, or keep what it has compiled.

    Parameters
    ----------
    error : Exception
        What went wrong.
    """

    def __init__(self, error: Exception):
        lines = [line.strip() for line in str(error).replace(". ", "\n").splitlines()]
        told = [line for line in lines if any(sign in line for sign in _SIGNS)]
        self.reason = (told or list(filter(None, lines)) or [type(error).__name__])[0].lstrip("('")
        super().__init__()

    def __str__(self) -> str:
        # Not from the arguments: Theano puts its own before them, with the node of the graph.
        return (f"Theano cannot compile the network: {self.reason}. Check the free space and the "
                f"permissions of {_cache()} and of {tempfile.gettempdir()}")


_LEAST_ROOM = 1 << 17  # bytes: of a lock, and of one compiled module
_SIGNS = ("No space left", "Disk quota exceeded", "File too large", "Read-only", "not permitted",
          "ermission denied", "error:")


def _cache() -> Path:
    return Path(environment.work_folder()).resolve() / "theano"


def explain_failures() -> None:
    """Let a module that cannot be compiled, loaded or kept be one error for people."""
    from theano.gof.cmodule import GCC_compiler, ModuleCache
    from theano.gof.utils import MethodNotDefined

    def explained(function):
        @functools.wraps(function)
        def call(*arguments, **options):
            try:
                with contextlib.redirect_stdout(io.StringIO()):  # where it has left the code
                    return function(*arguments, **options)
            except (CannotCompile, NotImplementedError, MethodNotDefined):
                raise  # the last two: there is no code for it, and Theano does without
            except Exception as error:
                # Where Theano only wanted to simplify a graph it goes on, after a traceback.
                logging.getLogger("theano").setLevel(logging.CRITICAL)
                raise CannotCompile(error) from error
        return call

    GCC_compiler.compile_str = staticmethod(explained(GCC_compiler.compile_str))
    ModuleCache.module_from_key = explained(ModuleCache.module_from_key)
