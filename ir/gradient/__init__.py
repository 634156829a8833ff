"""Reverse-mode differentiation, graph to graph: `differentiate` walks backwards, `rules` know the operators."""
