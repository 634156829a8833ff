"""Convolutions rewritten as depthwise-separable ones."""

from .depthwise import Depthwise

__all__ = ["Depthwise"]
