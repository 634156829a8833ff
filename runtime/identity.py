"""What samples are known by: the digest of their content, however they are given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..storage.fingerprint import Fingerprint, file_digest
from .columns import Array
from .samples import Samples, Source

MADE_UP = "made up"
"""The identity of samples that are drawn from the model's own inputs: the model and the seed tell the rest."""

_BATCH = 64


def identity(source: Source | Samples | None) -> str:
    """The digest of `source`. A stream, which can be read only once, has to be made into `Samples` first.

    Of a folder every file counts, with its name in it; what is not there has none. Raises `DataError` where a file
    cannot be read.
    """
    if source is None:
        return MADE_UP
    if isinstance(source, Samples):
        return _of_samples(source)
    if isinstance(source, np.ndarray):
        return _of_arrays({"": source})
    if isinstance(source, Mapping):
        return _of_arrays(source)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"a {type(source).__name__} of feeds can be read only once; load it first")
    try:
        return _of_path(Path(source)) if os.path.exists(source) else ""
    except OSError as error:
        raise DataError(f"{os.fspath(source)}: cannot be read: {error.strerror}") from error


def _of_path(path: Path) -> str:
    if path.is_file():
        return file_digest(path)
    if not path.is_dir():
        raise DataError(f"{path}: is not a plain file; give another")
    digest = Fingerprint("folder")
    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        digest.write(Fingerprint(file.relative_to(path).as_posix(), file_digest(file)).text.encode())
    return digest.text


def _of_arrays(arrays: Mapping[str, Array]) -> str:
    digest = Fingerprint("arrays")
    for name in sorted(arrays):
        digest.write(_of_array(name, np.asarray(arrays[name])).encode())
    return digest.text


def _of_array(name: str, array: Array) -> str:
    digest = Fingerprint(name, str(array.dtype), str(array.shape))
    if array.dtype.hasobject:
        digest.write(repr(array.tolist()).encode())
    else:
        digest.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.text


def _of_samples(samples: Samples) -> str:
    digest = Fingerprint("samples", str(sorted(samples.axes.items())))
    for feeds in samples.batches(_BATCH):
        digest.write(_of_arrays(feeds).encode())
    return digest.text
