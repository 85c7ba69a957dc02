"""Restricted pickle: published tracks come as pickles, and a pickle can run any program; one that
is read here cannot.

Allowed are numpy arrays and scalars, in dicts, lists, tuples, numbers, str, and bytes, pickled by
numpy 1 or 2 with any protocol. A pickle that asks for anything else, by its name in a module, is
refused before that is imported.

Numpy's own dtype is not let in either: it takes a pickle's word that a type of objects is one of
numbers, and so bytes would become addresses; and an array takes its word for how many objects there
are. Arrays are filled by `_Array`, which counts, with a dtype that is made anew from its letter and
size.
"""

from __future__ import annotations

import math
import pickle
import re
from typing import Any, BinaryIO

import numpy as np

from teachers.errors import ShardError


def load(file: BinaryIO, name: str) -> Any:
    """The object in a pickle; its arrays are of a subclass that behaves as `np.ndarray`.

    Args:
        file: opened for reading, at the first byte of the pickle.
        name: of the file, for the error's text.

    Raises:
        ShardError: it asks for something that is not allowed, is damaged or cut off, or is not a
            pickle.
    """
    try:
        return _Unpickler(file, name).load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise ShardError(
            f"{name}: not a whole pickle of plain arrays ({type(error).__name__}: {error}). It may "
            "be cut off: download it again."
        ) from error


def load_npy(file: BinaryIO, name: str) -> Any:
    """The array in an npy that is a pickle, as `np.save` writes a dict: [] of object; see
    `load`."""
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        _, _, dtype = read_header[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError) as error:
        raise ShardError(f"{name}: not an npy file ({error}).") from error
    if not dtype.hasobject:
        raise ShardError(f"{name}: an npy of {dtype}, not of a pickled dict.")
    return load(file, name)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(file)
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        found = ALLOWED.get((OLDER.get(module, module), name))
        if found is None:
            raise ShardError(
                f"{self._name}: refused: its pickle asks for {module}.{name}, and only numpy "
                "arrays and plain values are read from pickles, as anything else could run code. "
                "Nothing of it was run."
            )
        return found


class _Dtype:
    """What a pickle says of a dtype: b, i, u, f, c, S, U, or O with a size, then the order of
    bytes."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not re.fullmatch(r"[biufcSUO]\d+", code):
            raise ValueError(f"an array of type {code!r}")
        self.numpy = np.dtype(object) if code[0] == "O" else np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, subarray, names, fields, *_ = state
        if not subarray is names is fields is None:
            raise ValueError("an array of a structured type")
        self.numpy = self.numpy.newbyteorder(order)


class _Array(np.ndarray):
    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or any(side < 0 for side in shape):
            raise ValueError(f"an array of shape {shape}")
        if dtype.numpy.hasobject and len(content) != math.prod(shape):
            raise ValueError(f"{len(content)} objects for an array of shape {shape}")
        super().__setstate__((version, shape, dtype.numpy, fortran, content))


def _unfilled(subtype: object, shape: tuple[int, ...], code: bytes) -> _Array:
    """An array whose shape, dtype, and content come next in the pickle."""
    return np.empty(0, np.int8).view(_Array)


def _from_buffer(
    buffer: bytes | bytearray,
    dtype: _Dtype,
    shape: tuple[int, ...],
    order: str,
    axis_order: tuple[int, ...] | None = None,
) -> np.ndarray:
    """How protocol 5 writes arrays; `axis_order` since numpy 2.3."""
    if not isinstance(buffer, (bytes, bytearray)):
        raise ValueError("an array over another one")
    array = np.frombuffer(buffer, dtype.numpy)
    if axis_order is not None:
        return array.reshape(shape).transpose(axis_order)
    return array.reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _Dtype, content: bytes) -> np.generic:
    return np.frombuffer(content, dtype.numpy)[0]


def _from_latin1(text: str, encoding: str) -> bytes:
    """How protocols 0 to 2 write bytes."""
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How protocols 0 to 2 write empty bytes."""
    return b""


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "an argument of `_unfilled`, never called",
    ("numpy", "dtype"): _Dtype,
    ("numpy._core.multiarray", "_reconstruct"): _unfilled,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _from_latin1,
    ("builtins", "bytes"): _no_bytes,
}

OLDER = {
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
    "__builtin__": "builtins",
}
"""Modules as numpy 1 and protocols 0 to 2 name them, and as numpy 2 and later protocols do."""
