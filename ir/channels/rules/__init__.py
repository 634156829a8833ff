"""What each operator does with channels, one small rule each; see `channel_flow`.

Operators that are not listed hold on to every channel they read: nothing is assumed about them.
"""

from __future__ import annotations

from ..flow import Rule
from . import layers, pieces, pointwise, reshape, sizes

RULES: dict[str, Rule] = {**pointwise.RULES, **layers.RULES, **reshape.RULES, **pieces.RULES, **sizes.RULES}
"""Operators of the ONNX domain."""
