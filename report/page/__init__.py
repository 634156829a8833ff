"""The report as one page: self-contained HTML that shows where size, time and agreement went."""

from .write import require, write

__all__ = ["require", "write"]
