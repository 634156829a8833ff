"""Graphs as Relax functions, operator by operator."""
