"""Low-rank factorisation of linear layers."""

from .svd import Svd

__all__ = ["Svd"]
