"""One search over the options of all passes: a budget goes in, the best model that keeps it comes out.

`survey` fills the database of options (`space`), `strategies` propose picks of them, `judge` builds each through the
passes and holds it against the budget, `loop` does so for as long as it may, and `plan` writes down the answer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .function import Search, Stopped, search

__all__ = ["Search", "Stopped", "search"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'optc.searcher' has no attribute '{name}'")
    return getattr(importlib.import_module(".function", __name__), name)
