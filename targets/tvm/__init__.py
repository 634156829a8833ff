"""Targets that Apache TVM generates code for: libraries that need nothing else where they run."""
