"""Passes: graph rewrites, lossless and lossy, and the pipeline that runs them."""
