"""Bringing a graph to what code is generated for."""
