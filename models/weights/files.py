"""Arrays by name from a file of weights: PyTorch's two forms, safetensors, .npz, and Keras's .h5.

What a file is, is told by how it begins, not by its name.
"""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ModelError
from . import torch_file

Array = npt.NDArray[Any]


def read(path: str) -> dict[str, Array]:
    """Name to array, as the framework that wrote the file calls and lays out its parameters.

    Raises `ModelError` where the file is missing, of no known form, or damaged.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if "model.weights.h5" in names:
            raise _nameless(path)
        return _numpy(path) if names and all(name.endswith(".npy") for name in names) else torch_file.read(path)
    if torch_file.is_stream(head):
        return torch_file.read(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _keras(path)
    if head[8:9] == b"{":
        return _safetensors(path)
    raise ModelError(
        f"{path} holds no weights in a known form; give a PyTorch state dict, safetensors, .npz, or Keras's .h5"
    )


def _numpy(path: str) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _safetensors(path: str) -> dict[str, Array]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise ModelError(f"{path} needs the package safetensors; pip install 'optc[weights]'") from None
    try:
        arrays: dict[str, Array] = load_file(path)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return arrays


def _keras(path: str) -> dict[str, Array]:
    try:
        import h5py
    except ImportError:
        raise ModelError(f"{path} needs the package h5py; pip install 'optc[weights]'") from None
    arrays: dict[str, Array] = {}

    def take(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and not item.external:
            arrays[name.removesuffix(":0")] = np.asarray(item[()])

    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            root.visititems(take)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if arrays and all("/vars/" in name for name in arrays):
        raise _nameless(path)
    # A layer's group holds its parameters under the layer's own name once more.
    return {_once(name): array for name, array in arrays.items()}


def _nameless(path: str) -> ModelError:
    return ModelError(f"{path} counts its layers and does not name them; let Keras save the model as .h5")


def _once(name: str) -> str:
    """`conv1/conv1/kernel` as `conv1/kernel`; names with slashes in them are repeated as a whole."""
    parts = name.split("/")
    half = (len(parts) - 1) // 2
    return "/".join(parts[half:]) if half and parts[:half] == parts[half : 2 * half] else name
