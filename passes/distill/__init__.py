"""Distillation: the teacher's answers as the loss, and any pass's result as the student."""

from .distill import Distill

__all__ = ["Distill"]
