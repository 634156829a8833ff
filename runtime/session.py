"""A graph made runnable by ONNX Runtime, with any of its values as outputs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from ..errors import TargetError
from ..ir.calls import Calls, most_nodes
from ..ir.clone import clone
from ..ir.graph import Graph, Value
from ..ir.types import TensorType
from ..storage.workspace import Workspace
from .columns import Array
from .cpu import quota
from .ort_values import from_value, is_foreign, to_value

if TYPE_CHECKING:
    import onnxruntime

_INLINE_LIMIT = 1900 << 20
"""Bytes of constants above which a model no longer fits in one protobuf message (2 GiB) with room for the rest."""

_STATUS = re.compile(r"^\[ONNXRuntimeError\]\s*:\s*\d+\s*:\s*([A-Z_]+)\s*:\s*")
_SOURCE = re.compile(r"\S+\.(?:cc|cpp|h):\d+\s+(?:[\w:~<>]+(?:\([^)]*\))?\s*(?:const)?\s*)?")


class Runnable(Protocol):
    """A model that answers: outputs, in order, for one set of inputs. Times of an emulated one tell nothing."""

    emulated: ClassVar[bool]
    threads: int

    def run(self, feeds: Mapping[str, Array]) -> list[Array]: ...


class Session:
    """`graph` as it is now; later edits do not reach it.

    `outputs` are the values to return, any of the graph's own (inputs and constants too), in the order and as often as
    wanted; by default the graph's outputs. What they do not need is not run. `threads` is the number of threads within
    an operator, 0 for all cores. `optimise=False` runs the graph exactly as written. `exact` computes quantized
    operators in floats, as QuantizeLinear and DequantizeLinear around them say: integer kernels of this machine may
    saturate where those of another do not. Random operators start from `seed`. `spins=False` lets threads that wait
    within a run sleep, where other work goes on beside it.

    Raises `TargetError` where ONNX Runtime refuses the model.
    """

    __slots__ = ("graph", "outputs", "threads", "_session", "_names", "_order", "_how")
    emulated: ClassVar[bool] = False

    def __init__(
        self,
        graph: Graph,
        *,
        outputs: Sequence[Value] | None = None,
        threads: int = 0,
        optimise: bool = True,
        exact: bool = False,
        seed: int = 0,
        spins: bool = True,
    ) -> None:
        self.graph = graph
        self.threads = threads
        self.outputs = tuple(o.value for o in graph.outputs) if outputs is None else tuple(outputs)
        distinct = dict.fromkeys(self.outputs)
        place = {value: i for i, value in enumerate(distinct)}
        self._order = [place[value] for value in self.outputs]
        self._names = [f"optc.out.{i}" for i in range(len(distinct))]
        copy = _returning(graph, tuple(distinct), self._names)
        # ONNX Runtime refuses a model that returns nothing.
        self._session = _open(copy, _Options(threads, optimise, exact, seed, spins)) if distinct else None
        self._how = _run_options()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        threads: int = 0,
        optimise: bool = True,
        exact: bool = False,
        seed: int = 0,
    ) -> Session:
        """The model in a file, run as it stands there. Raises `ModelError` and `TargetError`."""
        from ..ir.onnx.reader import load

        graph = load(path)
        session = cls.__new__(cls)
        session.graph = graph
        session.threads = threads
        session.outputs = tuple(o.value for o in graph.outputs)
        session._names = [o.name for o in graph.outputs]
        session._order = list(range(len(graph.outputs)))
        name = os.fspath(path)
        # ONNX Runtime takes names in Unicode only; a file called otherwise is handed over as its bytes.
        model: bytes | str = name if _is_unicode(name) else Path(name).read_bytes()
        session._session = _create(model, name, _Options(threads, optimise, exact, seed)) if graph.outputs else None
        session._how = _run_options()
        return session

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs for one set of inputs, in the order asked for. Raises `TargetError` where the run fails."""
        if self._session is None:
            return []
        try:
            arrays = self._values(feeds) if self._foreign() else self._session.run(self._names, dict(feeds), self._how)
        except Exception as error:
            raise TargetError(f"running graph '{self.graph.name}' failed: {one_line(error)}") from error
        return [arrays[i] for i in self._order]

    def stop(self) -> None:
        """Let the run that another thread is in end between two nodes, and any after it."""
        self._how.terminate = True

    def _foreign(self) -> bool:
        """Whether an input or output is of a type that numpy lacks; see `ort_values`."""
        assert self._session is not None
        return any(is_foreign(arg.type) for arg in (*self._session.get_inputs(), *self._session.get_outputs()))

    def _values(self, feeds: Mapping[str, Array]) -> list[Array]:
        assert self._session is not None
        values = {name: to_value(array) for name, array in feeds.items()}
        return [from_value(value) for value in self._session.run_with_ort_values(self._names, values, self._how)]


def _run_options() -> onnxruntime.RunOptions:
    import onnxruntime

    return onnxruntime.RunOptions()


def _returning(graph: Graph, values: Sequence[Value], names: Sequence[str]) -> Graph:
    """A copy of `graph` that returns exactly `values`, and computes nothing else."""
    copies: dict[Value, Value] = {}
    copy = clone(graph, copies)
    for index in reversed(range(len(copy.outputs))):
        copy.remove_output(index)
    for value, name in zip(values, names, strict=True):
        if value not in copies:
            raise ValueError(f"value '{value.name}' is not one of graph '{graph.name}' itself")
        # A shape recorded before a rewrite may be out of date; ONNX Runtime infers it anyway.
        kind = value.type
        declared = TensorType(kind.dtype) if isinstance(kind, TensorType) and not kind.sparse else kind
        copy.add_output(copies[value], name).type = declared
    copy.sweep()
    return copy


CPU = ("CPUExecutionProvider",)


def bare(
    graph: Graph, *, threads: int, providers: Sequence[str] = CPU, in_order: bool = False
) -> onnxruntime.InferenceSession:
    """A session of ONNX Runtime itself, on the first of `providers` that takes each node, which runs the nodes
    `in_order` of the graph and fuses none of them. Raises `TargetError`."""
    import onnxruntime

    installed = onnxruntime.get_available_providers()
    for provider in providers:
        if provider not in installed:
            raise TargetError(f"ONNX Runtime has no {provider} here; installed are: {', '.join(installed)}")
    return _open(graph, _Options(threads, providers=providers, in_order=in_order))


@dataclass(frozen=True, slots=True)
class _Options:
    """How a session runs."""

    threads: int
    optimise: bool = True
    exact: bool = False
    seed: int = 0
    spins: bool = True
    in_order: bool = False
    providers: Sequence[str] = CPU


def _open(graph: Graph, how: _Options) -> onnxruntime.InferenceSession:
    """`graph` handed over in memory, or as a file where it is too large for one message."""
    from ..ir.onnx.writer import save, to_bytes

    what = f"graph '{graph.name}'"
    if graph.functions and (nodes := Calls.of(graph).total) > most_nodes(graph):
        # ONNX Runtime follows every call before it looks at anything.
        raise TargetError(f"the calls of functions in {what} stand for {nodes} nodes, which no runtime takes")
    size = sum(v.constant.nbytes for g in graph.graphs() for v in g.constants if v.constant is not None)
    if size < _INLINE_LIMIT:
        return _create(to_bytes(graph), what, how)
    with Workspace() as folder:
        path = str(Path(folder) / "model.onnx")
        save(graph, path)
        return _create(path, what, how)


def _create(model: bytes | str, what: str, how: _Options) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # ONNX Runtime counts cores, and knows no quota.
    options.intra_op_num_threads = how.threads or quota()
    options.log_severity_level = 4
    # Threads of one session that wait by spinning would slow the next one down.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if how.in_order:
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED  # all priorities are alike
    if not how.spins:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if how.exact:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if how.optimise else levels.ORT_DISABLE_ALL
    if how.in_order:  # what is fused stands behind all else
        options.graph_optimization_level = levels.ORT_ENABLE_BASIC
    onnxruntime.set_seed(how.seed)
    try:
        return onnxruntime.InferenceSession(model, options, providers=list(how.providers))
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise TargetError(f"ONNX Runtime does not take {what}: {one_line(error)}") from error


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    text = _STATUS.sub("", text)
    return _SOURCE.sub("", text).strip() or type(error).__name__
