"""Targets: what a model is built for."""
