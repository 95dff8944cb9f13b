"""Compile `native/decode_step.cpp` on this machine, once, and open it.

Nothing here is needed for right results: without a C++ compiler everything runs in torch, slower.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from llm_from_scratch.data.files import cache_folder

SOURCES = Path(__file__).parent / "native"
# -march=native: for this processor's widest registers. The mode of the floating-point unit stays as
# torch left it, which -ffast-math would change for the whole process.
FLAGS = ("-O3", "-march=native", "-std=c++20", "-fno-math-errno", "-fPIC", "-shared", "-fopenmp")


class NoCompilerError(RuntimeError):
    """The C++ code cannot be compiled or opened here; the message says why."""


class Matrix(ctypes.Structure):
    """`struct Matrix` of product.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("weights", "scale", "minimum", "bias")] + [
        (name, ctypes.c_int64) for name in ("rows", "columns", "format", "group")
    ]


class Norm(ctypes.Structure):
    """`struct Norm` of decode_step.cpp."""

    _fields_ = [("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p)]


class Layer(ctypes.Structure):
    """`struct Layer`."""

    _fields_ = [
        ("norm_1", Norm),
        ("norm_2", Norm),
        ("query_norm", ctypes.c_void_p),
        ("key_norm", ctypes.c_void_p),
        *((name, Matrix) for name in ("qkv", "output", "gate", "up", "down")),
    ]


class Model(ctypes.Structure):
    """`struct Model`."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                "layers", "d_model", "heads", "kv_heads", "d_head", "d_ff", "rotary_width", "window", "rms",
                "feedforward",
            )
        ),
        ("norm_eps", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("layer", ctypes.POINTER(Layer)),
        ("norm", Norm),
        ("head", Matrix),
    ]  # fmt: skip


class Batch(ctypes.Structure):
    """`struct Batch`."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("size", "capacity", "slots")),
        *(
            (name, ctypes.c_void_p)
            for name in ("slot", "stored", "keys", "values", "cosines", "sines", "bias")
        ),
        ("bias_length", ctypes.c_int64),
        ("x", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    ]


@functools.cache
def native_library() -> ctypes.CDLL:
    """The compiled functions ``decode_step`` and ``multiply``.

    Compiled at the first call on this machine, in about 5 seconds, and kept in the cache folder under a
    name that depends on the sources, the compiler and the processor.
    Raises: NoCompilerError, with the reason.
    """
    compiler = shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++") or shutil.which("clang++")
    if os.name == "nt" or compiler is None:
        raise NoCompilerError("there is no C++ compiler here (c++, g++ or clang++; none on Windows)")
    try:
        target = _run(compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull)
        content = [path.read_bytes() for path in sorted(SOURCES.glob("*.[ch]*"))]
        key = hashlib.sha256(b"\0".join([target, " ".join(FLAGS).encode(), *content])).hexdigest()[:16]
        path = cache_folder() / "native" / f"decode_step_{key}.so"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                built = Path(folder) / path.name
                _run(compiler, *FLAGS, str(SOURCES / "decode_step.cpp"), "-o", str(built))
                os.replace(built, path)
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NoCompilerError(f"{compiler} could not be used: {error}") from error
    library.decode_step.argtypes = [ctypes.POINTER(Model), ctypes.POINTER(Batch), ctypes.c_int]
    library.multiply.argtypes = [
        ctypes.POINTER(Matrix), ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
    ]  # fmt: skip
    library.decode_step.restype = library.multiply.restype = None
    return library


def _run(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise NoCompilerError(f"{command[0]} failed: {done.stderr.decode(errors='replace')[-600:]}")
    return done.stdout
