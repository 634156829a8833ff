"""The rules that every graph between two passes obeys."""
