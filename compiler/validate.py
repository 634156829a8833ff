"""Translation validation: every artifact is held against the graph that it was built from.

Pnueli, Siegel, Singerman, "Translation validation" (1998): rather than a compiler, each of its translations is proven.
Here it is run, on a few of the samples that judge: its outputs have the names, types and shapes of the graph's, and
their elements are what ONNX Runtime computes from the graph with its optimisations off, but for rounding
(`runtime.deviation`). Of what a random operator decides, only type and shape are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from ..errors import DataError, EmissionError, TargetError
from ..ir.graph import Graph, Value
from ..ir.randomness import drawn
from ..ir.types import DType
from ..report.build import Validation
from ..runtime.columns import Array
from ..runtime.deviation import close, flat, unexplained
from ..runtime.perturbed import error_of, perturbed
from ..runtime.samples import Samples
from ..runtime.session import Runnable, Session

SAMPLES = 8
"""Samples that an artifact is run on."""
_EMULATED = 2
"""Those where an emulator runs it, which is slow."""
_ELEMENTS = 1 << 22
"""Elements of outputs from which on no more samples are run."""
_SEEDS = (0, 1, 2)
_LAYOUT = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Concat", "Slice"})

_FOUR_BITS = frozenset({DType.INT4, DType.UINT4})

_Answers = list[list[Any]]
"""For each batch, the outputs in order."""
_Others = Callable[[], list[_Answers]]


def validate(graph: Graph, artifact: Runnable, held_out: Samples, error: float = 0.0) -> Validation:
    """Run `artifact`, which was built from `graph`, on a few of the samples `held_out`, and hold it against the graph.

    `error` is the relative error of its float32 numbers where that is more than such numbers have. Raises
    `EmissionError` where it answers otherwise than rounding explains, or fails where the graph does not.
    """
    _check_names(graph, artifact)
    artifact = _of_floats(artifact)
    feeds: list[Mapping[str, Array]] = []
    reference: _Answers = []
    # A dynamically quantized recurrent layer takes its scales of as many samples as a thread has.
    threads = artifact.threads if isinstance(artifact, Session) else 0
    try:
        session = _session(graph, threads)
        for one in _batches(held_out, artifact.emulated):
            reference.append(session.run(one))
            feeds.append(one)
            if sum(flat(answers).size for answers in reference) > _ELEMENTS:
                break
    except TargetError as reason:
        return Validation(0, f"there is nothing to hold the artifact against: {reason}")
    try:
        answers = [artifact.run(one) for one in feeds]
    except (DataError, TargetError) as failure:
        raise EmissionError(f"{failure}, though the graph that it was built from runs") from failure
    error = max(error, error_of(graph))
    others = cache(
        lambda: [one for seed in _SEEDS if (one := _run(perturbed(graph, error, seed), feeds, threads)) is not None]
    )
    skipped = []
    for index, output in enumerate(graph.outputs):
        how = _interface([one[index] for one in reference], [one[index] for one in answers], index, others)
        if not how and output.value in drawn(graph):
            skipped.append(output.name)
        elif not how:
            how = _elements(output.value, index, reference, answers, others, error)
        if how:
            raise EmissionError(
                f"the artifact does not answer as the graph that it was built from: output '{output.name}': {how}"
            )
    if len(skipped) == len(graph.outputs):
        return Validation(0, "a random operator decides all outputs")
    return Validation(sum(held_out.size_of(one) for one in feeds), "", tuple(skipped))


def _of_floats(artifact: Runnable) -> Runnable:
    """The artifact without the rounding of activations to 8 bits by which ONNX Runtime, left to itself, speeds up
    products with weights in blocks or in four bits. The model says nothing of it, and it is what agreement measures."""
    if not isinstance(artifact, Session):
        return artifact
    decoding = (node for node in artifact.graph.walk() if node.op == "DequantizeLinear" and not node.domain)
    for node in decoding:
        codes = node.input(0)
        if codes is not None and (node.get_int("block_size") or codes.dtype in _FOUR_BITS):
            return Session(artifact.graph, threads=artifact.threads, exact=True)
    return artifact


def _session(graph: Graph, threads: int) -> Session:
    """The graph as it is written, or as ONNX Runtime optimises it where it has no kernels for it as written."""
    try:
        return Session(graph, threads=threads, optimise=False)
    except TargetError:
        return Session(graph, threads=threads)


def _batches(held_out: Samples, emulated: bool) -> Iterable[Mapping[str, Array]]:
    """Samples together and, where there may be several, one alone."""
    part = held_out.take(_EMULATED if emulated else SAMPLES)
    yield from part.batches(1 if emulated else SAMPLES - 1)


def _run(graph: Graph, feeds: Iterable[Mapping[str, Array]], threads: int) -> _Answers | None:
    """What the graph answers; `None` where it does not run, as where an error changes a size."""
    try:
        session = _session(graph, threads)
        return [session.run(one) for one in feeds]
    except TargetError:
        return None


def _check_names(graph: Graph, artifact: Runnable) -> None:
    wanted = [output.name for output in graph.outputs]
    ports = artifact.graph.outputs if isinstance(artifact, Session) else getattr(artifact, "outputs", ())
    names = [port.name for port in ports]
    if names != wanted:
        raise EmissionError(f"the artifact has the outputs {', '.join(names)}, and the graph {', '.join(wanted)}")


def _interface(reference: list[Any], answers: list[Any], index: int, others: _Others) -> str:
    """What is wrong with the types and shapes of an output; a shape that rounding may change is right in any case."""
    for batch, (one, other) in enumerate(zip(reference, answers, strict=True)):
        want, got = _described(one), _described(other)
        if want != got and all(_described(answer[batch][index]) == want for answer in others()):
            return f"it is {got}, and {want} in the graph"
    return ""


def _described(answer: Any) -> str:
    if isinstance(answer, list):
        return f"({', '.join(map(_described, answer))})"
    return f"{answer.dtype.name}{list(answer.shape)}" if hasattr(answer, "dtype") else type(answer).__name__


def _elements(value: Value, index: int, reference: _Answers, answers: _Answers, others: _Others, error: float) -> str:
    want, got = (flat([one[index] for one in many]) for many in (reference, answers))
    if want.size != got.size or close(want, got, error):  # a size that rounding may change was looked at before
        return ""
    noisy = [flat([one[index] for one in answer]) for answer in others()]
    return unexplained(want, got, [one for one in noisy if one.size == want.size], error, _step(value))


def _step(value: Value) -> float:
    """The distance of neighbouring codes of an output that is made of codes, else 0."""
    node = value.producer
    while node is not None and node.op in _LAYOUT and node.inputs[0] is not None:
        node = node.inputs[0].producer
    if node is None or node.op not in ("QuantizeLinear", "DequantizeLinear"):
        return 0.0
    scale = node.inputs[1]
    if node.op == "QuantizeLinear":
        return 1.0
    return 0.0 if scale is None or scale.constant is None else float(abs(scale.constant.numpy()).max(initial=0.0))
