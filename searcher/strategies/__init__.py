"""Ways to propose candidates, a file each: generators of picks that look at what was judged between two proposals."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from ...errors import SpecError, nearest

if TYPE_CHECKING:
    from ..space import Pick
    from ..task import Task

    Strategy: TypeAlias = Callable[[Task], Iterator[Pick]]

STRATEGIES = ("knapsack", "evolution", "reinforce", "gradient", "random")
"""Every strategy by its word, that of its file; the first is the default, `random` a control."""


def strategy(name: str) -> Strategy:
    """The strategy called `name`. Raises `SpecError`."""
    if name not in STRATEGIES:
        raise SpecError(f"no strategy is called '{name}'.{nearest(name, STRATEGIES)}")
    propose: Strategy = importlib.import_module(f".{name}", __name__).propose
    return propose
