"""Quantized students: what they store as codes, as floats that a gradient moves."""
