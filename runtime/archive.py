"""Arrays of an `.npz` without reading them: stored members are mapped in place, packed ones unpacked to disk."""

from __future__ import annotations

import shutil
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataError
from .columns import Array

_LOCAL_HEADER = 30


def open_npz(path: Path) -> dict[str, Array]:
    """Name -> array, memory-mapped. Raises `DataError` for what is no readable `.npz` of plain arrays."""
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            for member in archive.infolist():
                if member.compress_type == zipfile.ZIP_STORED:
                    raw.seek(member.header_offset)
                    header = raw.read(_LOCAL_HEADER)
                    name_length, extra_length = struct.unpack("<HH", header[26:30])
                    file: BinaryIO = raw
                    file.seek(member.header_offset + _LOCAL_HEADER + name_length + extra_length)
                else:
                    with archive.open(member) as packed:
                        file = tempfile.TemporaryFile()  # noqa: SIM115 - unlinked at once, lives as long as the map
                        shutil.copyfileobj(packed, file, 1 << 20)
                        file.seek(0)
                arrays[member.filename.removesuffix(".npy")] = map_npy(file)
    # `zipfile` raises NotImplementedError for a way of packing that it does not know.
    except (OSError, ValueError, EOFError, struct.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be read as an .npz of arrays: {error}") from error
    return arrays


def open_npy(path: Path) -> Array:
    """The array of a `.npy`, memory-mapped. Raises `DataError`."""
    try:
        with path.open("rb") as file:
            return map_npy(file)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as a .npy array: {error}") from error


def map_npy(file: BinaryIO) -> Array:
    """Map the `.npy` that starts where `file` stands. Raises `ValueError` for object arrays and junk."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not loaded; save plain arrays")
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, mode="r", offset=file.tell(), shape=shape, order="F" if fortran else "C")
