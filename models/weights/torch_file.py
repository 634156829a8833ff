"""Tensors out of a file that `torch.save` wrote, without PyTorch and without running anything that the file asks for.

Both forms are read: the zip archive (PyTorch 1.6 and later) and the stream of pickles before it. A pickle is a program.
Here the only calls it can make are to `OrderedDict` and to the functions below, which make views of the bytes that the
file itself holds; every other name it asks for becomes an object that ignores what is done to it.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any, TypeGuard

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ...errors import ModelError

Array = npt.NDArray[Any]

_MAGIC = 0x1950A86A20F9469CFC6C
"""The number that the older form begins with (torch/serialization.py)."""
_STORAGES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class _Ignored:
    """Stands for an object of a class that is no tensor: takes any arguments and state, and does nothing."""

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass


class _Storage:
    """One block of numbers; its values may come only after the pickle that speaks of it."""

    def __init__(self, dtype: np.dtype[Any], count: int) -> None:
        self.dtype, self.count = dtype, count
        self.values: Array | None = None


class _View:
    """A tensor as the pickle describes it: a part of a storage, in sizes and strides counted in elements."""

    def __init__(self, storage: object, offset: object, size: object, stride: object, *rest: object) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def __setstate__(self, state: object) -> None:
        pass


class _Parameter(_Ignored):
    """A parameter is its tensor."""

    def __new__(cls, data: object, *rest: object) -> Any:
        return data


class _Kind:
    """A type of storage, such as FloatStorage; never called."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype


_NAMES: dict[tuple[str, str], Callable[..., object]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _View,
    ("torch._utils", "_rebuild_tensor_v2"): _View,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
}


class _Unpickler(pickle.Unpickler):
    """A pickle whose names are all ours; `storages` gathers the blocks of numbers that it speaks of, by key."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _Kind(_STORAGES[name])
        return _NAMES.get((module, name), _Ignored)

    def persistent_load(self, pid: Any) -> object:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            return _Ignored()
        kind, key, count = pid[1], str(pid[2]), pid[4]
        if not isinstance(kind, _Kind) or not isinstance(count, int) or count < 0:
            return _Ignored()
        return self.storages.setdefault(key, _Storage(kind.dtype, count))


def read(path: str) -> dict[str, Array]:
    """The tensors of a state dict by name, float32 or as they are stored.

    Raises `ModelError` where the file is no file of PyTorch, is cut off, or holds no tensors by name.
    """
    try:
        content = _archive(path) if zipfile.is_zipfile(path) else _stream(path)
    except ModelError:
        raise
    except Exception as error:  # A pickle can fail in any way; all of them mean the same.
        raise ModelError(f"{path} cannot be read as a file of PyTorch: {error or type(error).__name__}") from error
    return {name: _array(path, name, view) for name, view in _entries(path, content).items()}


def is_stream(head: bytes) -> bool:
    """Whether a file that begins so is of the older form."""
    return _MAGIC.to_bytes(10, "little") in head[:32]


def _archive(path: str) -> object:
    with zipfile.ZipFile(path) as archive:
        (index,) = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"] or [""]
        if not index:
            raise ModelError(
                f"{path} is an archive without data.pkl, as TorchScript or other tools write; save a state dict"
            )
        folder = index.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") == b"big":
            raise ModelError(f"{path} was written on a big-endian machine; save it on another")
        pickled = _Unpickler(io.BytesIO(archive.read(index)))
        content = pickled.load()
        for key, storage in pickled.storages.items():
            member = archive.getinfo(f"{folder}data/{key}")
            if member.file_size != storage.count * storage.dtype.itemsize:
                raise ModelError(f"{path}: the numbers '{key}' are {member.file_size} bytes, not those of their type")
            storage.values = np.frombuffer(archive.read(member), storage.dtype)
    return content


def _stream(path: str) -> object:
    with open(path, "rb") as file:
        if _Unpickler(file).load() != _MAGIC:
            raise ModelError(f"{path} is no file of PyTorch")
        _Unpickler(file).load()  # The version of the form; there was one.
        machine = _Unpickler(file).load()
        if isinstance(machine, dict) and not machine.get("little_endian", True):
            raise ModelError(f"{path} was written on a big-endian machine; save it on another")
        pickled = _Unpickler(file)
        content = pickled.load()
        for key in _Unpickler(file).load():
            (count,) = struct.unpack("<q", file.read(8))
            storage = pickled.storages[str(key)]
            if count != storage.count:
                raise ModelError(f"{path}: the numbers '{key}' are {count}, not {storage.count}")
            # Never asks for more memory than the file has bytes.
            data = file.read(count * storage.dtype.itemsize)
            if len(data) != count * storage.dtype.itemsize:
                raise ModelError(f"{path} is cut off within the numbers '{key}'; copy it again")
            storage.values = np.frombuffer(data, storage.dtype)
    return content


def _entries(path: str, content: object) -> dict[str, _View]:
    """The tensors by name: of a state dict, or of the one that a training checkpoint holds beside other things."""
    for key in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    views = {}
    if isinstance(content, Mapping):
        views = {name: view for name, view in content.items() if isinstance(name, str) and isinstance(view, _View)}
    if not views:
        raise ModelError(f"{path} holds no tensors by name; save model.state_dict(), not the model")
    prefix = "module." if all(name.startswith("module.") for name in views) else ""
    return {name.removeprefix(prefix): view for name, view in views.items()}


def _array(path: str, name: str, view: _View) -> Array:
    storage, offset, size, stride = view.storage, view.offset, view.size, view.stride
    if (
        not isinstance(storage, _Storage)
        or not isinstance(offset, int)
        or offset < 0
        or not _are_counts(size)
        or not _are_counts(stride)
        or len(size) != len(stride)
    ):
        raise ModelError(f"{path}: tensor '{name}' is described as none can be")
    last = offset + sum((count - 1) * step for count, step in zip(size, stride)) if all(size) else offset - 1
    if storage.values is None or last >= storage.count or np.prod([float(n) for n in size]) > storage.count:
        raise ModelError(f"{path}: tensor '{name}' reaches beyond its numbers; the file is damaged")
    steps = [step * storage.dtype.itemsize for step in stride]
    array = np.lib.stride_tricks.as_strided(storage.values[offset:], size, steps, writeable=False)
    return np.ascontiguousarray(array)


def _are_counts(sizes: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(sizes, tuple) and all(isinstance(size, int) and size >= 0 for size in sizes)
