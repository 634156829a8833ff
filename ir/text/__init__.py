"""The text of a graph, written and read."""
