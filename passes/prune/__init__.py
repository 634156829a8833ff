"""Pruning: fewer weights, or fewer channels, answering as the teacher did."""

from .prune import Prune

__all__ = ["Prune"]
