"""Merging: two layers become one, and the activation between them a line."""

from .merge import Merge

__all__ = ["Merge"]
