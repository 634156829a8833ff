"""What the page shows beyond the record of the build, gathered from the two graphs and the held-out samples.

Nothing is kept of a sample but counts, sums and small pictures. Where a graph does not run, or there are no samples,
what needs a run is absent and `notes` say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ...errors import DataError, TargetError
from ...ir.cost import cost
from ...ir.graph import Graph
from ...ir.shapes.infer import infer
from ...runtime.first_run import FirstRun, first_run
from ...runtime.profile import node_seconds
from ...runtime.session import Session
from ...runtime.sizes import sizes
from .. import annotated
from .answers import Answers, answers
from .drift import LayerDrift, drift
from .rows import PageRows, count_seconds, rows

if TYPE_CHECKING:
    from ...runtime.samples import Samples
    from ...targets.base import Target
    from ..build import BuildReport


class BuildEvidence(annotated.Built, Protocol):
    """What a compilation gives, as far as the page is concerned."""

    @property
    def original(self) -> Graph: ...
    @property
    def held_out(self) -> Samples | None: ...
    @property
    def key(self) -> str: ...
    @property
    def target(self) -> Target: ...


@dataclass(slots=True)
class Evidence:
    """Both graphs, their layers, and what was seen when they ran."""

    original: Graph
    result: Graph
    rows: PageRows
    spreads: list[LayerDrift] = field(default_factory=list)
    answers: Answers | None = None
    timed: bool = False
    starts: tuple[FirstRun, FirstRun] | None = None
    """How the original and the result start."""
    alignment: int = 1
    """Channels that the target's vectors take at once."""
    notes: list[str] = field(default_factory=list)


def gather(build: BuildEvidence) -> Evidence:
    """Look at a build from all sides; its graphs stay as they are. Raises `ModelError` where shape inference does."""
    original, result, samples, report = build.original, build.graph.clone(), build.held_out, build.report
    infer(result)
    dims = sizes(original, samples)
    evidence = Evidence(original, result, rows(original, result, report, dims))
    evidence.alignment = build.target.facts.channel_alignment
    if samples is None or report.agreement is None:
        evidence.notes.append("the models were not run beside each other: there are no times and no answers to compare")
        return evidence
    threads = 0 if report.latency is None else report.latency.threads
    try:
        _run(evidence, samples, report, dims, threads)
    except (DataError, TargetError) as error:
        evidence.notes.append(f"what needs a run is left out: {error}")
    return evidence


def _run(evidence: Evidence, samples: Samples, report: BuildReport, dims: Mapping[str, int], threads: int) -> None:
    feeds = next(samples.batches(1))
    # The result first: memory that one model has given back to the process is not seen to be taken by the next.
    after_passes = first_run(evidence.result, feeds, threads=threads)
    evidence.starts = first_run(evidence.original, feeds, threads=threads), after_passes
    for graph, after in ((evidence.original, False), (evidence.result, True)):
        seconds = node_seconds(graph, feeds, threads=threads)
        count_seconds(evidence.rows, seconds, after=after)
        evidence.timed |= bool(seconds)
    if report.agreement is not None and report.agreement.outputs:
        outputs = report.agreement.outputs
        index = min(range(len(outputs)), key=lambda i: (math.isnan(outputs[i].share), outputs[i].share))
        teacher, student = Session(evidence.original, threads=threads), Session(evidence.result, threads=threads)
        evidence.answers = answers(teacher, student, samples, index, outputs[index].name)
    sizes = {node: one.activations for node, one in cost(evidence.original, dims).nodes.items()}
    evidence.spreads = drift(evidence.original, evidence.result, evidence.rows, samples, sizes, threads)
