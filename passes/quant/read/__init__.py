"""Quantized graphs read back: as floats, and as what packed forms stand for."""
