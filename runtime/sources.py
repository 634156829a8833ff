"""Where samples come from: arrays, `.npz`, folders of `.npy`, of images, of ONNX test data, or a stream of feeds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DataError, ModelError, expect, nearest
from ..ir.graph import Graph, Value
from ..ir.printable import has_control, spelled
from ..ir.types import DType
from .archive import open_npy, open_npz, unreadable
from .axes import axes_of, axes_of_feed, batch_axes, fed_inputs
from .columns import Array, ArrayColumn, Column, LoadedColumn, SharedColumn
from .images import ImageColumn, find_images, image_column
from .layout import check_dtype, fits, samples_first
from .samples import Samples, Source
from .spool import Spool

_TAKEN = "an .npz, a .npy, or a folder of .npy files, of images or of test_data_set_*"


def load_samples(
    source: Source,
    graph: Graph,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    layout: Literal["auto", "NCHW", "NHWC"] = "auto",
    resize: int | tuple[int, int] | None = None,
) -> Samples:
    """Samples for the inputs of `graph` out of files or arrays.

    `source` is an `.npz` (input name -> array), a `.npy`, a folder of `.npy` (of subfolders named by input where there
    are several), a folder of images, a folder of ONNX `test_data_set_*`, an array, a mapping of arrays, or an iterable
    of feeds: mappings, arrays, or tuples of arrays in the order of the inputs, as a loader gives them.
    Arrays are stacked samples first, or as the graph wants its batch. `mean`, `std`, `layout` and `resize`
    are for images (`images.py`). Raises `DataError`, in one line that says how to put it right.
    """
    expect(graph, Graph, "samples are for the inputs of a Graph", ModelError)
    expect(source, (str, os.PathLike, Iterable), f"samples are arrays, feeds, {_TAKEN}", DataError)
    inputs = fed_inputs(graph)
    axes = batch_axes(graph)
    notes: list[str] = []
    if not inputs:
        raise DataError("the model has no inputs, so there is nothing to give samples for")
    if isinstance(source, np.ndarray):
        source = {_single(inputs, "an array").name: source}
    if isinstance(source, Mapping):
        columns = _of_arrays(source, inputs, axes, "the samples", notes)
    elif not isinstance(source, str | os.PathLike):
        columns = _of_feeds(source, inputs, axes, notes)
    else:
        path = Path(source)
        if has_control(os.fspath(source)):
            raise DataError(f"{os.fspath(source)!r}: holds a control character; give the file another name")
        if not os.fspath(source) or not path.exists():
            raise DataError(f"{os.fspath(source) or 'empty name'}: no such file or folder; samples are {_TAKEN}")
        _check_plain(path)
        if path.suffix.lower() == ".npz":
            columns = _of_arrays(open_npz(path), inputs, axes, str(path), notes)
        elif path.suffix.lower() == ".npy":
            columns = _of_arrays({_single(inputs, str(path)).name: open_npy(path)}, inputs, axes, str(path), notes)
        elif path.is_dir():
            columns = _of_folder(path, inputs, axes, notes, mean=mean, std=std, layout=layout, resize=resize)
        else:
            raise DataError(f"{path}: not a kind of samples that is known; give {_TAKEN}")
    images_only = mean is not None or std is not None or layout != "auto" or resize is not None
    if images_only and not isinstance(columns[0], ImageColumn):
        notes.append("mean, std, layout and resize are for images; these samples were taken as they are")
    return Samples(columns, axes, notes=notes)


def _check_plain(path: Path) -> None:
    """Raises `DataError` where `path` is a pipe or a device: reading would wait for its writer."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path}: is not a plain file; samples are {_TAKEN}")


def _single(inputs: Sequence[Value], where: str) -> Value:
    if len(inputs) != 1:
        names = ", ".join(f"'{v.name}'" for v in inputs)
        raise DataError(f"{where} gives one input, but the model has {len(inputs)}: {names}; give an .npz with all")
    return inputs[0]


def _named(have: Iterable[str], inputs: Sequence[Value], where: str, notes: list[str]) -> dict[str, str]:
    """Input name -> the name it goes by in the source."""
    names = list(have)
    wanted = [value.name for value in inputs]
    if len(wanted) == len(names) == 1:
        if names != wanted:
            notes.append(f"{where}: '{names[0]}' is taken for input '{wanted[0]}'")
        return {wanted[0]: names[0]}
    for name in wanted:
        if name not in names:
            raise DataError(f"{where}: nothing for input '{name}'.{nearest(name, names) or ' It is empty.'}")
    if unused := [name for name in names if name not in wanted]:
        notes.append(f"{where}: not inputs of the model, left out: {', '.join(unused)}")
    return {name: name for name in wanted}


def _of_arrays(
    arrays: Mapping[str, Array], inputs: Sequence[Value], axes: dict[str, int | None], where: str, notes: list[str]
) -> list[Column]:
    """The columns; `axes` become what the arrays say."""
    names = _named(arrays, inputs, where, notes)
    shapes = {value.name: [np.shape(arrays[names[value.name]])] for value in inputs}
    axis_of = axes_of(axes, inputs, shapes, one=True)
    if axis_of != axes and all(axis is None for axis in axes.values()):
        name = next(value.shape[0] for value in inputs if value.shape)
        notes.append(f"{where}: '{name}' is taken to count samples; else stack them along an axis before it")
    axes.update(axis_of)
    shared: list[Value] = []
    columns: dict[str, Column] = {}
    for value in inputs:
        array = np.asanyarray(arrays[names[value.name]])
        here, axis = f"{where}, '{names[value.name]}'", axes[value.name]
        if axis is None and len(inputs) > 1 and value.shape is not None and fits(array.shape, value.shape):
            check_dtype(value, array, here)
            shared.append(value)
            continue
        rows = samples_first(value, axis, array, here)
        if axis is None and rows.size != array.size:
            notes.append(f"{here}: {array.shape[0]} rows are no multiple of {rows.shape[1]}; the last were left out")
        dtype = _dtype(value, rows.dtype)
        if dtype != rows.dtype:
            notes.append(f"{here}: {rows.dtype} is fed as {dtype}")
        column = ArrayColumn(value.name, dtype, rows)
        column.check()
        columns[value.name] = column
    count = max((len(c) for c in columns.values()), default=1)
    for value in shared:
        array = np.asarray(arrays[names[value.name]])
        columns[value.name] = SharedColumn(value.name, _dtype(value, array.dtype), array, count)
    return [columns[value.name] for value in inputs]


def _of_feeds(
    feeds: Iterable[object], inputs: Sequence[Value], axes: dict[str, int | None], notes: list[str]
) -> list[Column]:
    """The columns; `axes` become what the first feed says."""
    spools = {value.name: Spool() for value in inputs}
    for number, feed in enumerate(feeds):
        where = f"feed {number}"
        named = feed if isinstance(feed, Mapping) else _in_order(feed, inputs, where, notes)
        names = _named(named, inputs, where, [])
        arrays = [np.asarray(named[names[value.name]]) for value in inputs]
        if number == 0:
            axes.update(axes_of_feed(axes, inputs, [array.shape for array in arrays]))
        for value, array in zip(inputs, arrays, strict=True):
            axis = axes[value.name]
            if value.shape is not None and array.ndim == len(value.shape) - 1 and axis is not None:
                array = np.expand_dims(array, axis)  # one sample by itself
            for row in samples_first(value, axis, array, where):
                spools[value.name].append(row)
    kinds = {v: np.dtype(np.str_ if v.dtype is DType.STRING else np.float32) for v in inputs}
    return [spools[v.name].column(v.name, _dtype(v, kinds[v])) for v in inputs]


def _in_order(feed: object, inputs: Sequence[Value], where: str, notes: list[str]) -> dict[str, Array]:
    """A batch that names no input: an array, or several in the order of the inputs, as a loader for training gives
    them. Arrays behind those of the inputs are labels, and left out."""
    items = list(feed) if isinstance(feed, tuple | list) else [feed]
    if not all(isinstance(item, np.ndarray) or hasattr(item, "__array__") for item in items):
        raise DataError(
            f"{where} is a {type(feed).__name__}; a feed is an array, several, or maps input names to arrays"
        )
    if len(items) < len(inputs):
        names = ", ".join(f"'{value.name}'" for value in inputs)
        raise DataError(f"{where} has {len(items)} arrays, and the model {len(inputs)} inputs: {names}")
    left = f"{where}: arrays behind those of the model's inputs are taken for labels, and left out"
    if len(items) > len(inputs) and not any("taken for labels" in note for note in notes):
        notes.append(left)
    # A tensor that is being trained gives its numbers only when it is taken off its graph.
    taken = [item.detach() if hasattr(item, "detach") else item for item in items]
    return {value.name: np.asarray(item) for value, item in zip(inputs, taken, strict=False)}


def _of_folder(
    folder: Path,
    inputs: Sequence[Value],
    axes: dict[str, int | None],
    notes: list[str],
    *,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    layout: str,
    resize: int | tuple[int, int] | None,
) -> list[Column]:
    for path in folder.rglob("*"):
        if has_control(path.name):
            raise DataError(f"{folder}: holds a file whose name has control characters in it: {spelled(path.name)}")
    sets = sorted(p for p in folder.glob("test_data_set_*") if p.is_dir())
    if not sets and (folder / "input_0.pb").exists():
        sets = [folder]
    if sets:
        return _of_files(
            {value.name: [s / f"input_{i}.pb" for s in sets] for i, value in enumerate(inputs)},
            inputs,
            axes,
            _read_tensor,
        )
    names = {p.name: p for p in folder.iterdir() if p.is_dir() and any(p.glob("*.npy"))}
    if names:
        folders = _named(names, inputs, str(folder), notes)
        return _of_files({v.name: sorted(names[folders[v.name]].glob("*.npy")) for v in inputs}, inputs, axes, open_npy)
    if files := sorted(folder.glob("*.npy")):
        return _of_files({_single(inputs, str(folder)).name: files}, inputs, axes, open_npy)
    if images := find_images(folder):
        value = _single(inputs, str(folder))
        if mean is None and std is None and (value.dtype or DType.FLOAT).is_float:
            notes.append(
                f"{folder}: pictures are fed as pixel / 255, from 0 to 1, since neither --mean nor --std is given; give"
                " those that the model was trained with where they are others"
            )
        return [image_column(images, value, axes[value.name], mean=mean, std=std, layout=layout, resize=resize)]
    raise DataError(f"{folder}: holds no samples; give {_TAKEN}")


def _of_files(
    files: Mapping[str, Sequence[Path]],
    inputs: Sequence[Value],
    axes: dict[str, int | None],
    read: Callable[[Path], Array],
) -> list[Column]:
    """The columns; `axes` become what the files say."""
    for paths in files.values():
        for path in paths:
            _check_plain(path)
    shapes = {name: [read(path).shape for path in paths] for name, paths in files.items()}
    axes.update(axes_of(axes, inputs, shapes, one=False))
    return [_files_column(files[value.name], value, axes[value.name], read) for value in inputs]


def _files_column(files: Sequence[Path], value: Value, axis: int | None, read: Callable[[Path], Array]) -> Column:
    """One row a file, or several where a file holds a batch."""
    rows: list[tuple[Path, int]] = []
    for path in files:
        rows.extend((path, i) for i in range(len(samples_first(value, axis, read(path), str(path)))))

    def load(index: int) -> Array:
        path, row = rows[index]
        return np.asarray(samples_first(value, axis, read(path), str(path))[row])

    return LoadedColumn(value.name, _dtype(value, np.dtype(np.float32)), len(rows), load)


def _read_tensor(path: Path) -> Array:
    import onnx

    try:
        tensor = onnx.TensorProto.FromString(path.read_bytes())
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ValueError("its data is in another file, which is not read")
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except Exception as error:  # protobuf's own among them
        raise unreadable(path, "an ONNX tensor", error) from error


def _dtype(value: Value, stored: np.dtype[np.generic]) -> np.dtype[np.generic]:
    return stored if value.dtype in (None, DType.STRING, DType.UNDEFINED) else value.dtype.numpy
