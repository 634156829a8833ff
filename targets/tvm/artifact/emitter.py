"""Emission by a copy of this process, which loads TVM while this one reads the model and runs it.

Loading TVM is a fifth of what a small model takes to be built, and needs nothing of the model. And where TVM or LLVM
ends its process, it is not the one that has to say so. There is no copy where `beside` allows none.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, cast

from ....errors import EmissionError, OptcError
from ..cpu import beside
from ..loading import load

if TYPE_CHECKING:
    from ....ir.graph import Graph
    from ...base import Artifact, Emit

_MOST = 256 << 20
"""Bytes of a graph that a copy is handed; more of them twice would take too much memory."""
_PATIENCE = 2.0
"""Seconds that a copy has to tidy up once it is told to end."""
_WANTED = (
    "..schedule.pipeline", "..relax.module", "..relax.lowering", "..relax.convolutions", "..relax.products", ".plan",
    ".manifest",
)  # fmt: skip
"""Modules that most builds need, which import parts of TVM."""
_AFTERWARDS = ("numpy.ma", "rich.console", "rich.table")
"""What the check and the summary need, loaded while the copy is at work."""
_DEATH_SIGNAL = 1
"""Linux's number of the option `PR_SET_PDEATHSIG` of `prctl`."""


@contextmanager
def emitter(emit: Emit, name: str) -> Iterator[Emit]:
    """What emits one graph as `emit` of the target `name` does, by a copy that is being made ready where there may be
    one.

    It raises as `emit` does, and `EmissionError` where the copy ends without an answer.
    """
    if sys.platform != "win32" and "tvm" not in sys.modules and beside.may_copy():
        try:
            ready = _Copy(emit, name)
        except OSError:  # no more processes or files, or no memory for one
            yield emit
            return
        with ready:
            yield ready.emit
    else:
        yield emit


if sys.platform != "win32":

    class _Copy:
        """A process that answers one question: a graph and a path, with an artifact or an exception."""

        def __init__(self, emit: Emit, name: str) -> None:
            self._emit, self._name, self._asked = emit, name, False
            maker = os.getpid()
            jobs, questions = os.pipe()
            try:
                answers, replies = os.pipe()
            except OSError:
                _close(jobs, questions)
                raise

            def serve() -> None:
                _close(questions, answers)
                with open(jobs, "rb") as coming, open(replies, "wb") as going:
                    self._serve(coming, going, maker)

            try:
                self._process = beside.copy(serve)
            except OSError:
                _close(jobs, questions, answers, replies)
                raise
            _close(jobs, replies)
            self._questions, self._answers = os.fdopen(questions, "wb"), os.fdopen(answers, "rb")

        def __enter__(self) -> _Copy:
            return self

        def __exit__(self, *_: object) -> None:
            with suppress(BrokenPipeError):
                self._questions.close()
            self._answers.close()
            self._end()

        def emit(self, graph: Graph, path: str) -> Artifact:
            from ....ir.onnx.writer import size, to_bytes

            if self._asked or size(graph) > _MOST:
                return self._emit(graph, path)
            self._asked = True
            with suppress(BrokenPipeError):  # it has ended, as is said below
                pickle.dump((to_bytes(graph), path), self._questions)
                self._questions.flush()
            for module in _AFTERWARDS:
                importlib.import_module(module)
            answer = self._answers.read()
            if not answer:
                raise EmissionError(f"{self._name} failed on graph '{graph.name}': {self._ended()}")
            result = pickle.loads(answer)
            if isinstance(result, BaseException):
                raise result
            return cast("Artifact", result)

        def _ended(self) -> str:
            """How the copy ended that gave no answer; what it could not tidy up goes now."""
            from ....storage.abandoned import remove_abandoned

            _, status = os.waitpid(self._process, 0)
            self._process = 0
            remove_abandoned(tempfile.gettempdir())
            if os.WIFSIGNALED(status):
                return f"the compiler was ended by {signal.Signals(os.WTERMSIG(status)).name}"
            return f"the compiler ended with status {os.WEXITSTATUS(status)}"

        def _end(self) -> None:
            """Let the copy tidy up what it has begun; it is killed where that takes long."""
            if not self._process:
                return
            os.kill(self._process, signal.SIGTERM if self._asked else signal.SIGKILL)
            deadline = time.monotonic() + _PATIENCE
            while time.monotonic() < deadline:
                ended, _ = os.waitpid(self._process, os.WNOHANG)
                if ended:
                    return
                time.sleep(0.002)
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)

        def _serve(self, questions: BinaryIO, answers: BinaryIO, maker: int) -> None:
            """What the copy does. Whatever tells it to end, what it has not finished goes with it."""
            from ....ir.onnx.reader import from_bytes
            from ....runtime.interrupt import ENDS

            for one in (signal.SIGINT, *ENDS):
                if signal.getsignal(one) is not signal.SIG_IGN:  # as below nohup
                    signal.signal(one, signal.default_int_handler)
            ctypes.CDLL(None).prctl(_DEATH_SIGNAL, int(signal.SIGTERM))
            if os.getppid() != maker:
                return
            with suppress(Exception):  # what does not load says so when it is needed
                load()
                for module in _WANTED:
                    importlib.import_module(module, __package__)
            try:
                model, path = pickle.load(questions)
            except EOFError:
                return
            graph = from_bytes(model)
            try:
                answer: Artifact | BaseException = self._emit(graph, path)
            except (OptcError, MemoryError) as error:
                answer = error
            except Exception as error:
                what = f"{self._name} failed on graph '{graph.name}': {type(error).__name__}: {error}"
                answer = EmissionError(what)
                answer.add_note(traceback.format_exc())
            pickle.dump(answer, answers)

    def _close(*files: int) -> None:
        for one in files:
            os.close(one)
