"""The search for scales: the least loss, the first of equals, and the start where nothing is a number."""

from __future__ import annotations

import numpy as np

from optc.passes.quant.numbers.search import search


def test_each_element_takes_the_first_candidate_of_least_loss() -> None:
    best = np.asarray([1.0, 2.0, 3.0])
    tried = [np.full(3, number) for number in (3.0, 1.0, 2.0)]
    assert search(np.zeros(3), tried, lambda scale: (scale - best) ** 2).tolist() == [1.0, 2.0, 3.0]
    assert search(np.zeros(3), tried, lambda scale: np.zeros(3)).tolist() == [3.0, 3.0, 3.0]


def test_the_start_stays_where_no_loss_is_a_number() -> None:
    lost = np.asarray([np.nan, 1.0])
    assert search(np.full(2, 7.0), [np.ones(2)], lambda scale: lost).tolist() == [7.0, 1.0]
