"""Large arrays that passes make lie in files without names."""

from __future__ import annotations

import tempfile
from io import BytesIO

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.spilled import LARGE, SpilledTensor, spilled
from optc.ir.tensor import ArrayTensor
from optc.ir.types import DType


@pytest.mark.parametrize(
    "dtype", [DType.FLOAT, DType.INT8, DType.INT64, DType.BOOL, DType.FLOAT16, DType.INT4, DType.UINT2]
)
def test_it_reads_and_writes_as_the_array_does(dtype: DType) -> None:
    array = np.random.default_rng(0).integers(0, 2, (3, 5, 7)).astype(dtype.numpy)
    in_file, in_memory = SpilledTensor(array, dtype), ArrayTensor(array, dtype)
    assert (in_file.dtype, in_file.shape, in_file.nbytes) == (dtype, (3, 5, 7), in_memory.nbytes)
    np.testing.assert_array_equal(in_file.numpy(), array)
    assert in_file.numpy().dtype == dtype.numpy
    assert not in_file.numpy().flags.writeable
    written, expected = BytesIO(), BytesIO()
    in_file.write(written)
    in_memory.write(expected)
    assert written.getvalue() == expected.getvalue()
    in_file.release()
    np.testing.assert_array_equal(in_file.numpy(), array)


def test_an_array_that_is_no_copy_in_a_row_is_written_in_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(SpilledTensor(array, DType.FLOAT).numpy(), array)


def test_graphs_keep_large_arrays_in_files_and_small_ones_in_memory() -> None:
    graph = Graph("weights")
    large = graph.constant(np.zeros(LARGE, np.int8)).constant
    small = graph.constant(np.zeros(LARGE - 1, np.int8)).constant
    assert isinstance(large, SpilledTensor)
    assert isinstance(small, ArrayTensor)


def test_a_full_disk_leaves_it_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    tensor = ArrayTensor(np.zeros(LARGE, np.int8))
    assert spilled(tensor) is tensor
