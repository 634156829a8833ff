"""Changes that keep the function of a graph and make it easier to quantize."""
