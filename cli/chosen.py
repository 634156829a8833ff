"""What one compilation is to be, after the command line has won over the configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import SpecError

if TYPE_CHECKING:
    from ..compiler import Build
    from ..compiler.locked import Locked
    from ..compiler.options import Options
    from ..project.config import ModelEntry
    from ..project.lock import Lock
    from ..targets.base import Target


@dataclass(frozen=True, slots=True)
class Chosen:
    """`config` is the file that options were taken from, if any."""

    model: str
    target: str
    output: str
    options: Options
    config: str | None
    entry: ModelEntry | None

    @property
    def targets(self) -> tuple[Target, ...]:
        from ..targets import table

        return table.distinct([self.target])

    def record(self, path: str | None, *, strict: bool) -> Lock | None:
        """The lock file, where one is wanted. Raises `LockError`, `SpecError`."""
        from ..project.lock import Lock

        if path is None and self.config is not None and strict:
            path = os.path.splitext(self.config)[0] + ".lock"
        if path is None:
            if strict:
                raise SpecError("--locked needs the file to hold the build against: --lock FILE")
            return None
        return Lock.read(path, strict=strict)

    def name(self, target: str) -> str:
        """What the build for a target is called in the lock file."""
        from ..compiler.model import stem_of
        from ..project.lock import build_name

        stem = stem_of(self.model)
        return build_name(stem if self.entry is None else self.entry.name, target)

    def locked(self, record: Lock | None, *, strict: bool) -> dict[str, Locked]:
        """What the lock file says of each target. Raises `LockError` where a strict one says nothing."""
        from ..targets import table

        texts = [table.spec(one) for one in self.targets] if record is not None else []
        locks = {text: record.of(self.name(text), strict=strict) for text in texts if record is not None}
        return {text: one for text, one in locks.items() if one is not None}

    def reports(self, path: str) -> list[str]:
        """The files that `path` stands for: itself, or one a target, `NAME.TARGET.json`."""
        from ..targets import table

        stem, end = os.path.splitext(path)
        aims = self.targets
        return [path] if len(aims) == 1 else [f"{stem}.{table.word(one)}{end}" for one in aims]

    def depend(self, path: str, build: Build) -> None:
        """Write the dependency file `path`. Raises `OutputError`."""
        from ..passes.pipeline import Pipeline
        from ..project import depfile

        pipeline = Pipeline.of(self.options.passes)
        inputs = depfile.inputs(self.model, build.original, pipeline, self.options.data_path, self.config)
        student = self.options.student
        if student is not None and not os.fspath(student).startswith("zoo:"):
            inputs.append(os.fspath(student))
        depfile.write(
            path, [self.output] if not build.others else [p for one in build.each for p in one.artifacts], inputs
        )


def choose(
    model: str,
    config: str | None,
    options: Mapping[str, Any],
    keep: Sequence[str],
) -> Chosen:
    """The options that the configuration has for `model`, with those of the command line in their place.

    `config` is the file to read; without it an `optc.toml` beside the model is. `model` is a path, or in a file that
    was named the name of an entry. Raises `SpecError`.
    """
    from ..compiler.options import Options
    from ..passes.base import Override
    from ..project.config import FILE, load
    from ..targets import table

    beside = os.path.join(os.path.dirname(model), FILE)
    path = config if config is not None else beside if os.path.isfile(beside) and os.path.isfile(model) else None
    entry = None
    if path is not None:
        file = load(path)
        entry = file.of_model(model)
        if entry is None and config is not None:
            entry = file.entry(model)
    whole = replace(Options() if entry is None else entry.options, **options)
    whole = replace(whole, overrides=(*whole.overrides, *(Override(match, keep=True) for match in keep)))
    target, output = options.get("target"), options.get("output")
    if entry is None:
        return Chosen(model, target or "onnx", output or _beside(model, target or "onnx"), whole, None, None)
    if target is None and len(entry.targets) > 1:
        names = ", ".join(entry.targets)
        raise SpecError(f"{path} builds '{entry.name}' for {names}; choose one with --target, or run: optc build")
    aim = target if target is not None else entry.targets[0]
    model = model if os.path.exists(model) else entry.path
    place = entry.artifact(aim)
    if output is None and len(table.distinct([aim])) > 1:
        place = os.path.dirname(place)
    return Chosen(model, aim, output or place, whole, path, entry)


def _beside(model: str, target: str) -> str:
    """Where the artifact goes unless told: beside the model, or in the same folder where there are several."""
    from ..compiler.model import stem_of
    from ..targets import table

    aims = table.distinct([target])
    stem = stem_of(model) if model.startswith("zoo:") else os.path.splitext(model)[0]
    return table.file_names(stem, aims)[0] if len(aims) == 1 else os.path.dirname(stem) or "."
