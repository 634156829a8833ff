"""Samples as a loader for training gives them: arrays, or tuples of arrays and labels, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from optc.errors import DataError
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.runtime.sources import load_samples

ROWS = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)


def network(inputs: int = 1) -> Graph:
    graph = Graph("g", opsets={"": 17})
    values = [graph.add_input(f"x{number}", TensorType(DType.FLOAT, ("N", 3, 4))) for number in range(inputs)]
    graph.add_output(graph.add("Relu", [values[0]]).output, "y", TensorType(DType.FLOAT, ("N", 3, 4)))
    return graph


class Tensor:
    """What a training framework hands out: an array only once it is taken off its graph."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def detach(self) -> np.ndarray:
        return self.array

    def __array__(self) -> np.ndarray:
        raise RuntimeError("call detach first")


def loader() -> Iterator[tuple[Tensor, np.ndarray]]:
    for start in (0, 4):
        yield Tensor(ROWS[start : start + 4]), np.arange(4)


@pytest.mark.parametrize(
    "source",
    [[ROWS[:4], ROWS[4:]], list(ROWS), (ROWS,), [(ROWS[:2],), (ROWS[2:],)]],
    ids=["batches", "single samples", "a tuple", "tuples"],
)
def test_a_list_of_arrays_is_samples(source: object) -> None:
    samples = load_samples(source, network())  # type: ignore[arg-type]
    assert samples.count == 6
    assert np.array_equal(next(samples.batches(6))["x0"], ROWS)


def test_a_loader_with_labels_is_samples_and_says_what_it_left_out() -> None:
    samples = load_samples(loader(), network())
    assert np.array_equal(next(samples.batches(6))["x0"], ROWS)
    assert len(samples.notes) == 1
    assert "taken for labels" in samples.notes[0]


def test_arrays_go_to_the_inputs_in_their_order() -> None:
    feeds = next(load_samples([(ROWS, 2 * ROWS)], network(2)).batches(6))
    assert np.array_equal(feeds["x1"], 2 * ROWS)
    with pytest.raises(DataError, match="has 1 arrays, and the model 2 inputs: 'x0', 'x1'"):
        load_samples([ROWS], network(2))
    with pytest.raises(DataError, match="a feed is an array, several, or maps"):
        load_samples([[1.0]], network())  # type: ignore[list-item]
