"""QuantizeLinear and DequantizeLinear: where they stand, and what they hold."""
