"""Weights stored in few bits and computed with in float."""
