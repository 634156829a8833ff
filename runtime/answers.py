"""What a model answers to samples, in an `.npz`: output name -> array, samples first."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import numpy as np

from ..errors import TargetError
from ..storage.atomic import Replacement
from .columns import Array
from .samples import Samples
from .session import Runnable


def save_answers(path: str, model: Runnable, names: Sequence[str], samples: Samples) -> None:
    """Run `model`, whose outputs are `names` in order, on each of the samples, and write what it answers to `path`.

    Where the first axis of an output counts the samples, they stand along it, else along a new first axis; an output
    whose shape differs between samples is as many arrays `NAME.0`, `NAME.1`, … Raises `OutputError`, and `TargetError`
    for outputs that are no tensors.
    """
    answers: list[list[Array]] = [[] for _ in names]
    counted = [True] * len(names)
    for feeds in samples.batches(1):
        for index, answer in enumerate(model.run(feeds)):
            if isinstance(answer, list) or answer.dtype.hasobject:
                raise TargetError(f"output '{names[index]}' is no tensor of numbers, and cannot be saved in an .npz")
            answers[index].append(answer)
            counted[index] &= answer.shape[:1] == (samples.size_of(feeds),)
    with Replacement(path) as files:
        _write(files.open(), _arrays(names, answers, counted))


def _arrays(
    names: Sequence[str], answers: Sequence[list[Array]], counted: Sequence[bool]
) -> Iterable[tuple[str, Array]]:
    for name, arrays, along in zip(names, answers, counted, strict=True):
        if len({array.shape for array in arrays}) == 1:
            yield name, np.concatenate(arrays) if along else np.stack(arrays)
        else:
            yield from ((f"{name}.{index}", array) for index, array in enumerate(arrays))


def _write(file: BinaryIO, arrays: Iterable[tuple[str, Array]]) -> None:
    """As `np.savez`, which takes no array called `file`."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
