"""Watching a pipeline run: time it, dump every step, keep what is needed to reproduce a crash.

An observer sees the graph before and after every pass and must leave it as it is.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import tempfile
from typing import TYPE_CHECKING, ClassVar

from ..errors import OptcError, OutputError
from .base import Context, Pass, Report
from .pipeline import spec

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..runtime.samples import Samples


class Observer:
    """Called around every pass; `position` counts passes from 1."""

    passive: ClassVar[bool] = False
    """Whether it has nothing to see where a whole build is known already, so that no pass runs."""

    def before(self, position: int, one: Pass, graph: Graph) -> None:
        """The pass is about to run on `graph`."""

    def after(self, position: int, one: Pass, graph: Graph, report: Report) -> None:
        """The pass has run, and the guard has spoken."""

    def crashed(self, position: int, one: Pass, before: Graph, ctx: Context) -> str:
        """The pass raised, or left an invalid graph; `before` is what it was given. A sentence for the user, or ''."""
        return ""

    def miscompiled(self, graph: Graph, target: str, seed: int, samples: Samples | None) -> str:
        """What `target` wrote of `graph` answers otherwise than the graph, or it failed to write; `samples` are some of
        those that show it. A sentence for the user, or ''."""
        return ""


class Log(Observer):
    """Tells the logger `optc` of every pass: at level INFO how it ended, at DEBUG that it starts and its notes."""

    passive = True

    def __init__(self) -> None:
        self._log = logging.getLogger("optc")

    def before(self, position: int, one: Pass, graph: Graph) -> None:
        self._log.debug("%s starts on %d nodes", spec(one), len(graph))

    def after(self, position: int, one: Pass, graph: Graph, report: Report) -> None:
        self._log.info("%s: %s (%d nodes, %.1f s)", spec(one), report.summary, len(graph), report.seconds)
        for note in report.notes:
            self._log.debug("%s: %s", spec(one), note)


class Dump(Observer):
    """Writes the text of the graph after every pass: `DIR/003_svd.txt`, and `DIR/000_input.txt` before the first."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def before(self, position: int, one: Pass, graph: Graph) -> None:
        if position == 1:
            self._write(0, "input", graph)

    def after(self, position: int, one: Pass, graph: Graph, report: Report) -> None:
        self._write(position, one.name, graph)

    def _write(self, position: int, name: str, graph: Graph) -> None:
        path = os.path.join(self.folder, f"{position:03d}_{name}.txt")
        try:
            os.makedirs(self.folder, exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(str(graph))
        except OSError as error:
            raise OutputError(f"cannot write the dump {path}: {error.strerror}; choose another folder") from error


class Reproduce(Observer):
    """On a crash, writes the model as the failing pass was given it, and the one command that shows the crash.

    `command.txt` is a shell script: it goes back to the folder that relative paths of the command start from.
    """

    passive = True

    def crashed(self, position: int, one: Pass, before: Graph, ctx: Context) -> str:
        word = re.sub(r"[^\w-]+", "_", one.name)
        return _reproducer(word, before, spec(one), ctx.data, ctx.target.name, ctx.seed)

    def miscompiled(self, graph: Graph, target: str, seed: int, samples: Samples | None) -> str:
        return _reproducer("emission", graph, "", samples or "", target, seed)


def _reproducer(word: str, graph: Graph, passes: str, data: str | Samples, target: str, seed: int) -> str:
    """Write a folder with the graph, the samples where they are in no file yet, and the command; name the command."""
    from ..ir.onnx.writer import save

    try:
        folder = tempfile.mkdtemp(prefix=f"optc-crash-{word}-")
    except OSError as error:
        return f"no reproducer could be written: {error}"
    path = os.path.join(folder, "before.onnx")
    try:
        save(graph, path)
        if not isinstance(data, str):
            data = data.save(os.path.join(folder, "samples.npz"))
        command = f"optc {shlex.quote(path)} --no-clean --passes {shlex.quote(passes)}"
        if data:
            command += f" --data {shlex.quote(data)}"
        command += f" --target {shlex.quote(target)} --seed {seed} --traceback"
        with open(os.path.join(folder, "command.txt"), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"cd {shlex.quote(os.getcwd())}\n{command}\n")
    except (OSError, OptcError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        return f"no reproducer could be written: {error}"
    return f"to reproduce: {command}"
