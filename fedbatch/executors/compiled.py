"""The C of this package, built by the machine's own compiler when it is first wanted, and kept in the cache folder."""

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch

from fedbatch.core import cache as cached

COMPILER = ("cc", "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-shared", "-fPIC")
NAMES = {torch.float32: ("float", "sgemm_"), torch.float64: ("double", "dgemm_")}
"""Of numbers in C, and of torch's product of matrices for them."""


class NotCompiledError(RuntimeError):
    """There is no compiled form here; the text says why."""


@cache
def library(source: str, dtype: torch.dtype) -> ctypes.CDLL:
    """A C file of this package, built for a dtype (``REAL``).

    Raises:
        NotCompiledError: no compiler, or one that cannot build it.
    """
    try:
        text = (files("fedbatch.executors") / source).read_bytes()
    except OSError as error:  # a Flower app bundle leaves such files out
        raise NotCompiledError(f"{source} is not among fedbatch's files here") from error
    real = NAMES[dtype][0]
    machine = repr((COMPILER, real, platform.node(), platform.machine(), platform.processor())).encode()
    name = f"{source.removesuffix('.c')}-{hashlib.blake2b(text + machine, digest_size=16).hexdigest()}.so"
    path = cached.folder() / name
    if not path.is_file():
        cached.write(path, _built(text, real))
    if not path.is_file():
        raise NotCompiledError(f"the cache folder {path.parent} cannot be written")
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NotCompiledError(f"{path} cannot be loaded ({error})") from error


@cache
def product(dtype: torch.dtype) -> ctypes.c_void_p:
    """The address of torch's own BLAS product of matrices for a dtype.

    Raises:
        NotCompiledError: torch does not show one.
    """
    try:
        torch_library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return ctypes.cast(getattr(torch_library, NAMES[dtype][1]), ctypes.c_void_p)
    except (OSError, AttributeError) as error:
        raise NotCompiledError("torch does not show its product of matrices here") from error


def _built(text: bytes, real: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.c"), Path(folder, "target.so")
        source.write_bytes(text)
        command = [*COMPILER, f"-DREAL={real}", str(source), "-o", str(target), "-lm"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
        except OSError as error:
            raise NotCompiledError(f"no C compiler ({error.strerror}: {COMPILER[0]})") from error
        if done.returncode:
            raise NotCompiledError(f"{COMPILER[0]} cannot build it ({done.stderr.strip().splitlines()[-1:]})")
        return target.read_bytes()
