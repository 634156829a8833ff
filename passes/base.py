"""What a pass is, what it is given, and what it must answer for.

A pass is a frozen dataclass: its class variables say what it is, its fields are its options. It edits the graph in
place and returns a `Report` in which every layer that it looked at is done, skipped for a reason, or reverted for a
reason. What a pass may know about the place the model is built for is in `TargetFacts`; it never imports a target.
"""

from __future__ import annotations

import enum
import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar

from ..ir.types import DType
from .recall import Recall, decided

if TYPE_CHECKING:
    from ..ir.graph import Graph, Node
    from ..runtime.agreement import Agreement
    from ..runtime.latency_table import Estimator
    from ..runtime.original import Original
    from ..runtime.samples import Samples

Detail: TypeAlias = "str | int | float | bool"


class Outcome(enum.Enum):
    """How a pass left a layer."""

    DONE = "done"
    SKIPPED = "skipped"
    REVERTED = "reverted"


class Skip(Exception):
    """Raised while looking at one layer: leave it as it is, for this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Layer:
    """What became of one layer. `detail` holds the figures worth telling, by name: ratio, rank, error, bits."""

    name: str
    op: str
    outcome: Outcome
    reason: str = ""
    detail: dict[str, Detail] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Moment:
    """A training after so many steps: the mean loss on what it learns from since the moment before, `None` at its
    start, and that on held-out samples."""

    step: int
    fit: float | None
    held_out: float


@dataclass(slots=True)
class Report:
    """The record of one run of one pass.

    `layers` holds one entry for every layer looked at; `rewrites` counts what a lossless pass did, by rule; `notes` are
    sentences for the user. `forwards` is the time it took in forward passes of the teacher over the samples to fit on,
    where it walked them. `cached` tells that the pass was not run, because it had been run on the same before. `curve`
    is how a training went. `interrupted` tells that the user stopped the pass before its end, and took what there was.
    """

    spec: str = ""
    layers: list[Layer] = field(default_factory=list)
    rewrites: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    forwards: float | None = None
    cached: bool = False
    curve: list[Moment] = field(default_factory=list)
    interrupted: bool = False

    def done(self, name: str, op: str, **detail: Detail) -> None:
        self.layers.append(Layer(name, op, Outcome.DONE, "", detail))

    def skipped(self, name: str, op: str, reason: str, **detail: Detail) -> None:
        self.layers.append(Layer(name, op, Outcome.SKIPPED, reason, detail))

    def revert(self, reason: str) -> None:
        """Turn every layer that was done into one that was reverted, for one reason: the pass did not pay."""
        self.layers = [
            Layer(layer.name, layer.op, Outcome.REVERTED, reason, layer.detail)
            if layer.outcome is Outcome.DONE
            else layer
            for layer in self.layers
        ]
        self.notes.append(f"reverted: {reason}")

    def rewrote(self, rule: str, times: int = 1) -> None:
        if times:
            self.rewrites[rule] = self.rewrites.get(rule, 0) + times

    def count(self, outcome: Outcome) -> int:
        return sum(layer.outcome is outcome for layer in self.layers)

    @property
    def summary(self) -> str:
        """The layers by outcome and the rewrites, in a few words."""
        counts = [f"{n} {outcome.value}" for outcome in Outcome if (n := self.count(outcome))]
        if self.rewrites:
            counts.append(f"{sum(self.rewrites.values())} rewrites")
        return ", ".join(counts) or "nothing to do"

    @property
    def changed(self) -> bool:
        """Whether the pass says that it left the graph different."""
        return bool(self.rewrites) or any(layer.outcome is Outcome.DONE for layer in self.layers)


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What passes may ask about a target. `name` is its text on the command line, options and all.

    `channel_alignment`: kept channels and ranks are multiples of this, because the kernels' register tiles are.
    `activation_dtype`, `weight_dtype`: the sign combination of the fast int8 kernels.
    `integer_qdq`: whether QuantizeLinear/DequantizeLinear around an op becomes integer arithmetic.
    `saturating_int8`: whether u8 x s8 products saturate at 16 bits, so that weights must keep to 7 bits.
    `sparse_initializers`: whether weights may be stored as `sparse_initializer`.
    `max_opset`, `max_ir_version`: the newest model the runtime loads.
    `measurable`: whether the kernels of this machine, and so the times measured on it, are those of the target.
    `depthwise_lanes`: channels that integer kernels of depthwise convolutions take at a time; what is left, one by one.
    `input_lanes`: input channels that those of other convolutions take at a time; what is no multiple, slower kernels.
    `contrib_ops`: whether operators of ONNX Runtime's own domain, com.microsoft, run there.
    """

    name: str
    channel_alignment: int = 8
    activation_dtype: DType = DType.UINT8
    weight_dtype: DType = DType.INT8
    integer_qdq: bool = True
    saturating_int8: bool = False
    sparse_initializers: bool = True
    max_opset: int = 26
    max_ir_version: int = 13
    measurable: bool = True
    contrib_ops: bool = False
    depthwise_lanes: int = 1
    input_lanes: int = 1


class Draft(Protocol):
    """A place for what a long pass has so far, so that the next run of the same goes on from there."""

    def load(self) -> bytes | None: ...

    def save(self, document: bytes) -> None: ...


class Progress:
    """Where passes tell how far they are; this one tells nobody. The command line hands in one that draws."""

    @contextmanager
    def task(self, title: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        """A stretch of work of `total` steps; call what this yields with the number of steps just made."""
        yield lambda steps: None


@dataclass(slots=True)
class Context:
    """What a pass is given besides the graph.

    `teacher` is the model as the first lossy pass found it: what every lossy pass answers to. `fit` are the samples to
    fit on, `held_out` the ones kept out of every fit to judge by; both are `None` where nothing runs the model
    (`Pass.needs_samples`). `data` is where the samples came from, as the user wrote it. `overrides` say what single
    layers want; the later ones win. `rivals` are the passes of the pipeline that `Pass.rivals` names. `recall(question,
    decide, read)` answers with what `decide` says, or said when the same pass met the same graph before, as `read`
    reads it: what is decided by the clock must be asked for so, or no build could be repeated. `measure(question,
    decide, read)` answers with what `decide` says, or said in any build for a target of the same facts: what is
    measured of a shape alone; what `read` refuses is measured again. `threads` are
    those of numerical libraries; 0 lets them choose. `provider` names what ONNX Runtime trains on
    (`runtime/providers.py`). `forward` is how many seconds the teacher's run over `fit` took, as the last walk measured
    it; 0 before the first. `rewritten` is the model as the last pass had it before it lost anything, where that
    computes the same by other values inside. `latencies` tells how long graphs take on the target, where that was
    measured before. `draft` keeps what a killed pass had so far; `None` where nothing is kept. `original` is the
    teacher with what it was asked already (`agreement`). Unless it `repairs`, the walk fits every layer to what it
    answers itself to what it reads, not to make up for those before it: what is made of a layer so is right beside
    others that are as they were.
    """

    target: TargetFacts
    teacher: Graph | None = None
    fit: Samples | None = None
    held_out: Samples | None = None
    data: str = ""
    overrides: tuple[Override, ...] = ()
    rivals: Rivals = field(default_factory=lambda: Rivals())
    recall: Recall = decided
    measure: Callable[[str, Callable[[], str], Callable[[str], object]], str] = lambda question, decide, read: decide()
    seed: int = 0
    threads: int = 0
    provider: str = "cpu"
    progress: Progress = field(default_factory=Progress)
    forward: float = 0.0
    rewritten: Graph | None = None
    latencies: Estimator | None = None
    draft: Draft | None = None
    original: Original | None = None
    repairs: bool = True

    def agreement(self, graph: Graph) -> Agreement:
        """How far `graph` agrees with the teacher on the samples held out, both of which must be there. Raises as
        `runtime.agreement.agreement` does."""
        from ..runtime.original import Original

        assert self.teacher is not None
        assert self.held_out is not None
        if (
            self.original is None
            or self.original.graph is not self.teacher
            or self.original.samples is not self.held_out
        ):
            self.original = Original(self.teacher, self.held_out, threads=self.threads)
        return self.original.agreement(graph, exact=self.exact)

    @property
    def exact(self) -> bool:
        """Whether quantized graphs are judged by what they say, because the kernels here are not the target's."""
        return not self.target.measurable

    @property
    def timed(self) -> bool:
        """Whether anything tells how long a graph takes on the target: this machine, or a table."""
        return self.target.measurable or self.latencies is not None

    def options(self, one: PassT, node: Node) -> PassT:
        """The pass with the options that its overrides give for the layer `node`.

        Raises `Skip` where the layer is to be kept as it is.
        """
        changes = self.wanted(one, node)
        return replace(one, **changes) if changes else one

    def wanted(self, one: Pass, node: Node) -> dict[str, object]:
        """The options of the pass that overrides give for the layer `node`, and they alone.

        Raises `Skip` where the layer is to be kept as it is.
        """
        changes: dict[str, object] = {}
        for override in self.overrides:
            if override.covers(node):
                if override.keep or one.name in override.skips:
                    raise Skip(f"kept by {override}")
                changes.update(override.passes.get(one.name, {}))
        return changes

    def kept(self, one: Pass, node: Node) -> str:
        """Why the overrides keep the layer `node` from this pass, or ""."""
        try:
            self.options(one, node)
        except Skip as skip:
            return skip.reason
        return ""


@dataclass(frozen=True, slots=True)
class Override:
    """What some layers want: those whose node, or a node that it was made from, has a name that fits the shell-like
    pattern `match`, and whose operator is `op` where that is given.

    `keep` leaves them as they are, `skips` only in the passes named there; `passes` are options by pass, of those that
    a layer can have of its own (see `option`).
    """

    match: str = "*"
    op: str = ""
    keep: bool = False
    skips: tuple[str, ...] = ()
    passes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def covers(self, node: Node) -> bool:
        if self.op and node.op != self.op:
            return False
        first = node.name or (node.outputs[0].name if node.outputs else "") or node.op
        return any(fnmatch.fnmatchcase(name, self.match) for name in (first, *node.origin.nodes))

    def __str__(self) -> str:
        parts = [*([f"op={self.op}"] if self.op else []), *([f"match={self.match}"] if self.match != "*" else [])]
        return " ".join(parts) or "match=*"


@dataclass(frozen=True, slots=True)
class Pass(ABC):
    """One transformation. The fields of a subclass are its options (see `option`)."""

    name: ClassVar[str]
    """The word on the command line: lower case, `-` between words."""
    lossy: ClassVar[bool] = False
    """Whether outputs may change beyond rounding; a lossy pass is given samples and is watched by the guard."""

    @property
    def needs_samples(self) -> bool:
        """Whether it cannot do without samples. A lossy pass that can is given them all the same, but where nothing
        else runs the model: none were given, and the result is not checked."""
        return self.lossy

    mends: ClassVar[bool] = False
    """Whether it is there to make the model agree better, and leaves it as it was where it did not."""
    rivals: ClassVar[tuple[str, ...]] = ()
    """The words of passes that change the same layers in other ways; in one pipeline each layer takes the better."""

    def __post_init__(self) -> None:
        """Raises `SpecError` for options that the command line would not take either."""
        from .spec import check

        check(self.name, self)

    def requires(self, graph: Graph, ctx: Context) -> None:  # noqa: B027 - most passes require nothing
        """Raise an `OptcError` where the pass cannot run at all; what one layer lacks is a skip instead."""

    @abstractmethod
    def run(self, graph: Graph, ctx: Context) -> Report:
        """Edit `graph` in place and say what became of every layer."""

    @classmethod
    def stages(cls) -> dict[str, str]:
        """The stages that the pass takes a graph through, in order, each with what it does; {} for a pass of one."""
        return {}

    @property
    def may_be_slower(self) -> bool:
        """Whether the user asked for the bytes whatever a run then takes."""
        return False

    @property
    def in_float(self) -> Pass | None:
        """The pass that saves about the same bytes and leaves the speed as it was; `None` where there is none."""
        return None


@dataclass(frozen=True, slots=True)
class Rivals:
    """Passes of a pipeline that change the same layers as one of it in other ways: those that ran `before` that one,
    and those that run `after` it."""

    before: tuple[Pass, ...] = ()
    after: tuple[Pass, ...] = ()


PassT = TypeVar("PassT", bound=Pass)


def option(default: Any, help: str, *, low: float | None = None, high: float | None = None, layer: bool = False) -> Any:
    """A pass option: a dataclass field with its help, and the bounds (inclusive) of a number.

    `layer` marks an option that a single layer can have of its own (`Context.options`).
    """
    return field(default=default, metadata={"help": help, "low": low, "high": high, "layer": layer})
