"""Arrays of an `.npz` without reading them: stored members are mapped in place, packed ones unpacked to disk."""

from __future__ import annotations

import lzma
import math
import os
import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import DataError
from ..ir.tensor import POINTER, SourceFile
from .columns import Array

_LOCAL_HEADER = 30
_ENCRYPTED = 1
_PACKED_AT_MOST = 20
"""How many times its size a file may unpack to; numbers that were measured pack to a half."""
_FREE = 256 << 20
"""Bytes that any file may unpack to."""
DAMAGED = (
    *(OSError, ValueError, EOFError, RuntimeError, ArithmeticError, LookupError, TypeError, SyntaxError, MemoryError),
    *(struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)
"""What damaged archives and headers make of their readers, those of ways of packing that are not known among them."""


def unreadable(path: Path, what: str, error: Exception | str) -> DataError:
    """The refusal of a file of samples that is not `what` its name says."""
    if path.is_file() and SourceFile(str(path)).is_pointer:
        return DataError(f"{path}: {POINTER}")
    return DataError(f"{path}: cannot be read as {what}: {error}")


def open_npz(path: Path) -> dict[str, Array]:
    """Name -> array, memory-mapped. Raises `DataError` for what is no readable `.npz` of plain arrays."""
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            members = archive.infolist()
            _check_size(members, path)
            for member in members:
                if member.flag_bits & _ENCRYPTED:
                    raise ValueError(f"'{member.filename}' is encrypted")
                if member.compress_type == zipfile.ZIP_STORED:
                    raw.seek(member.header_offset)
                    header = raw.read(_LOCAL_HEADER)
                    name_length, extra_length = struct.unpack("<HH", header[26:30])
                    raw.seek(member.header_offset + _LOCAL_HEADER + name_length + extra_length)
                    array = map_npy(raw)
                else:
                    with archive.open(member) as packed, tempfile.TemporaryFile() as file:  # the map of it stays
                        shutil.copyfileobj(packed, file, 1 << 20)
                        file.seek(0)
                        array = map_npy(file)
                arrays[member.filename.removesuffix(".npy")] = array
    except DAMAGED as error:
        raise unreadable(path, "an .npz of arrays", error) from error
    return arrays


def _check_size(members: Sequence[zipfile.ZipInfo], path: Path) -> None:
    """Raises `ValueError` where what is packed would fill the disk."""
    size = sum(one.file_size for one in members if one.compress_type != zipfile.ZIP_STORED)
    if size > _FREE + _PACKED_AT_MOST * path.stat().st_size:
        raise ValueError(f"its arrays unpack to {size} bytes, far more than the file has; save them with numpy.savez")


def open_npy(path: Path) -> Array:
    """The array of a `.npy`, memory-mapped. Raises `DataError`."""
    try:
        with path.open("rb") as file:
            return map_npy(file)
    except DAMAGED as error:
        raise unreadable(path, "a .npy array", error) from error


def map_npy(file: IO[bytes]) -> Array:
    """Map the `.npy` that starts where `file` stands. Raises `ValueError` for object arrays and junk."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape {shape} has a negative size")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not loaded; save plain arrays")
    if 0 in shape:
        return np.empty(shape, dtype)
    if math.prod(shape) * dtype.itemsize > os.fstat(file.fileno()).st_size - file.tell():
        raise ValueError(f"its shape {shape} reaches past the end of the file")
    return np.memmap(file, dtype, mode="r", offset=file.tell(), shape=shape, order="F" if fortran else "C")
