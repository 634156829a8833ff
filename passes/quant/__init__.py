"""Quantization: weights and activations as integer codes."""

from .quant import Quant

__all__ = ["Quant"]
