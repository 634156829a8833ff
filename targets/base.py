"""What a target is: facts for the passes, the legalisation it needs, and how its artifact is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..passes.base import TargetFacts
from ..passes.pipeline import Pipeline

if TYPE_CHECKING:
    from ..ir.graph import Graph


@dataclass(frozen=True, slots=True)
class Artifact:
    """What emission wrote: the file that a user loads, and every file that belongs to it."""

    path: str
    files: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Target(ABC):
    """A place that models are built for. The fields of a subclass are its options."""

    name: ClassVar[str]
    help: ClassVar[str]

    @property
    @abstractmethod
    def facts(self) -> TargetFacts:
        """What the passes may ask. May probe the runtime once."""

    def legalisation(self) -> Pipeline:
        """The passes that turn any graph into one this target takes; they run after the user's."""
        return Pipeline()

    @abstractmethod
    def emit(self, graph: Graph, path: str) -> Artifact:
        """Write the artifact of a legal graph, whole or not at all. Raises `OutputError`, `TargetError`."""
