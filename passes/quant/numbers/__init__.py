"""Arithmetic of quantization on arrays: parameters, ranges, rounding. It knows no graph."""
