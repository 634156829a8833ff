"""What a compilation gives."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import OutputError, expect
from ..ir.graph import Graph
from ..report.build import BuildReport
from ..runtime.samples import Samples
from ..targets.base import Artifact, Target


@dataclass(frozen=True, slots=True, repr=False)
class Build:
    """What a compilation gives: the graph as emitted, the record of how it came to be, and the files if any.

    `original` is the graph as it was read, for whoever wants to look closer. `key` is what the cache knows the build
    by, empty where it is not kept; `judges` draws the samples that judged (see `held_out`).
    Where several targets were asked for, this is the first one's, and `others` are the builds for the rest in order.
    """

    graph: Graph
    report: BuildReport
    target: Target
    original: Graph
    artifact: Artifact | None = None
    key: str = ""
    judges: Callable[[], Samples | None] = field(default=lambda: None, repr=False, compare=False)
    others: tuple[Build, ...] = ()

    def __post_init__(self) -> None:
        self.report.draw = self._draw

    def _draw(self, path: str) -> None:
        from ..report import annotated, page
        from ..report.files import ANNOTATED, WHOLE, extension

        (annotated if extension(path, WHOLE) == ANNOTATED else page).write(self, path)

    def __repr__(self) -> str:
        more = f" and {len(self.others)} more" if self.others else ""
        return f"<Build {self.report!r}{more}>"

    @property
    def held_out(self) -> Samples | None:
        """The samples that judged, where there are any; those of a build out of the cache are drawn anew."""
        return self.judges()

    @property
    def each(self) -> tuple[Build, ...]:
        """This build and the others, one a target."""
        return self, *self.others

    @property
    def met(self) -> bool:
        """Whether the budget was met; true where there was none."""
        return self.report.budget is None or self.report.budget.met

    @property
    def artifacts(self) -> tuple[str, ...]:
        """The files that were written, if any."""
        return () if self.artifact is None else self.artifact.files

    def save(self, path: str | os.PathLike[str]) -> Artifact:
        """Write the artifact to `path`; the same bytes each time. Raises `OutputError`."""
        expect(path, (str, os.PathLike), "a place to write to is a path", OutputError)
        return self.target.emit(self.graph, os.fspath(path))


class Interrupted(KeyboardInterrupt):
    """A build was interrupted, and what the passes before that had made was written all the same: `build`."""

    def __init__(self, message: str, build: Build) -> None:
        super().__init__(message)
        self.build = build
