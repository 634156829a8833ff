"""Lossless cleaning: one rule a file, run to a fixed point by `clean`."""

from .clean import Clean

__all__ = ["Clean"]
