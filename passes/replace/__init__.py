"""Replacement: a block goes for a cheaper one of another kind, fitted to answer as it does."""

from .replace import Replace

__all__ = ["Replace"]
