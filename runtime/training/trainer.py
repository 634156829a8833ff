"""Training: batches cut in micro-batches that fit in memory, gradients summed, one step of an optimizer.

A batch is cut in equal micro-batches, of which as many are worked on at a time as `runtime.parallel` says, each on its
share of the cores. Gradients are summed in the order of the micro-batches, so that the same seeds and threads give the
same parameters, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ...ir.clone import clone
from ...ir.graph import Graph, Value
from ..columns import Array
from ..parallel import beside, threads_each
from ..session import CPU
from .backward import Backward, Run
from .optimizer import AdamW, Floats, clip_by_norm
from .parameters import Parameters
from .peak import Peak
from .schedule import Constant, Schedule


class Trainer:
    """Trains `parameters` of `graph` on `loss`, a scalar that is a mean over the samples of a batch.

    `memory` is the most bytes that the activations of a step may take: the size of micro-batches is found by runs that
    are measured, and where one sample is too large, much of the forward pass is computed twice. Without it a batch is
    cut only as far as it is worked on side by side. `clip` is the largest norm of a gradient; `average` the decay of a
    moving average of the parameters, which `averaged` holds (`None` without).
    `axes` are the axes of inputs that count samples, 0 where a name is absent, and `None` for inputs without samples.
    """

    def __init__(
        self,
        graph: Graph,
        loss: Value,
        parameters: Parameters,
        *,
        optimizer: AdamW | None = None,
        schedule: Schedule | None = None,
        memory: int | None = None,
        clip: float | None = None,
        average: float | None = None,
        axes: Mapping[str, int | None] | None = None,
        threads: int = 0,
        providers: Sequence[str] = CPU,
    ) -> None:
        self.parameters = parameters
        self.optimizer = AdamW() if optimizer is None else optimizer
        self.schedule = Constant(1e-4, 1) if schedule is None else schedule
        self.memory, self.clip, self.average = memory, clip, average
        self.axes = dict(axes or {})
        self.steps = 0
        """Steps taken since the start, or the last restart."""
        self.moments = self.optimizer.state(parameters.flat.size)
        self.averaged: Floats | None = parameters.flat.copy() if average is not None else None
        self.micro = 0
        """Samples of a micro-batch; 0 before the first step."""
        each = threads_each(threads)
        self.backward = Backward(graph, loss, parameters, threads=each, providers=providers)
        copies: dict[Value, Value] = {}
        spare = None if memory is None else clone(graph, copies)  # callers take their loss off again

        def frugal() -> Backward:
            assert spare is not None
            return Backward(spare, loss, parameters, frugal=True, copies=copies, threads=each, providers=providers)

        self._frugal = frugal
        self._still = self._without_motion()
        self._beside = beside(threads)
        self._gradient = np.zeros_like(parameters.flat)
        self._runs: list[tuple[Run, Floats]] = []

    def restart(self, flat: Floats, schedule: Schedule) -> None:
        """Begin anew from the parameters in `flat`, along `schedule`."""
        self.parameters.flat[...] = flat
        for buffer in self.moments:
            buffer[...] = 0.0
        if self.averaged is not None:
            self.averaged[...] = flat
        self.schedule = schedule
        self.steps = 0

    def step(self, feeds: Mapping[str, Array]) -> float:
        """One step on a batch; returns its loss. Where loss or gradient is not finite, nothing moves."""
        loss = self._differentiate(feeds)
        gradient = self._gradient
        gradient[self._still] = 0.0
        norm = clip_by_norm(gradient, np.inf if self.clip is None else self.clip)
        if not np.isfinite(loss) or not np.isfinite(norm):
            return float("nan")
        self.steps += 1
        flat = self.parameters.flat
        kept = flat[self._still]  # weight decay would move what has no gradient
        self.optimizer.move(flat, gradient, self.moments, self.steps, self.schedule.rate(self.steps))
        flat[self._still] = kept
        self.parameters.confine()
        if self.averaged is not None and self.average is not None:
            self.averaged += np.float32(1 - self.average) * (flat - self.averaged)
        return loss

    def _without_motion(self) -> npt.NDArray[np.intp]:
        """The elements of the buffers that stay as they are: those masked, and those before what has no gradient."""
        free = np.ones_like(self.parameters.flat) if self.parameters.free is None else self.parameters.free.copy()
        for value in self.backward.still:
            self.parameters.view(free, value)[...] = 0.0
        return np.flatnonzero(free == 0.0)

    def gradient(self, feeds: Mapping[str, Array]) -> tuple[float, Floats]:
        """The loss of a batch and its gradient, in a buffer like the parameters' that the next call overwrites."""
        return self._differentiate(feeds), self._gradient

    def _differentiate(self, feeds: Mapping[str, Array]) -> float:
        count = self._count(feeds)
        if not self.micro:
            self.micro = self._fitting(feeds, count)
        pieces = [slice(start, min(start + self.micro, count)) for start in range(0, count, self.micro)]
        self._gradient[...] = 0.0
        total = 0.0
        side = min(self._beside, len(pieces))
        runs = self._places(side)
        if side == 1:
            for piece in pieces:
                total += self._add(runs[0], runs[0][0](self._cut(feeds, piece))[0], piece, count)
            return total
        with ThreadPoolExecutor(side, thread_name_prefix="optc-step") as pool:
            for start in range(0, len(pieces), side):
                group = list(zip(runs, pieces[start : start + side]))
                due = [pool.submit(run[0], self._cut(feeds, piece)) for run, piece in group]
                for (run, piece), one in zip(group, due):
                    total += self._add(run, one.result()[0], piece, count)
        return total

    def _add(self, run: tuple[Run, Floats], loss: float, piece: slice, count: int) -> float:
        share = (piece.stop - piece.start) / count
        self._gradient += np.float32(share) * run[1] if share != 1.0 else run[1]
        return float(share * loss)

    def _places(self, count: int) -> list[tuple[Run, Floats]]:
        while len(self._runs) < count:
            buffer = np.zeros_like(self.parameters.flat)
            self._runs.append((self.backward.bind(buffer), buffer))
        return self._runs[:count]

    # -- checkpoints

    def state(self) -> dict[str, Array]:
        """All that the next steps depend on but the schedule, by name; buffers are those that the next step writes."""
        return {"progress": np.array([self.steps, self.micro], np.int64), **self._buffers()}

    def _buffers(self) -> dict[str, Floats]:
        buffers = {"parameters": self.parameters.flat} | {f"moment{i}": one for i, one in enumerate(self.moments)}
        return buffers if self.averaged is None else buffers | {"averaged": self.averaged}

    def go_on(self, state: Mapping[str, Array]) -> None:
        """Go on from a `state`: the same steps give the same parameters as if nothing had stopped.

        Raises `ValueError` where it is that of another training.
        """
        buffers = self._buffers()
        if {"progress", *buffers} != set(state) or any(state[n].shape != b.shape for n, b in buffers.items()):
            raise ValueError("other parameters or another optimizer")
        steps, micro = (int(number) for number in state["progress"])
        if steps < 0 or micro < 1:
            raise ValueError("it is as far as none can be")
        for name, buffer in buffers.items():
            buffer[...] = state[name]
        self.steps, self.micro = steps, micro

    # -- samples

    def _count(self, feeds: Mapping[str, Array]) -> int:
        sizes = {}
        for name in self.backward.inputs:
            if name not in feeds:
                raise DataError(f"the batch has no '{name}', which the model reads")
            axis = self.axes.get(name, 0)
            if axis is not None:
                sizes[name] = feeds[name].shape[axis]
        if len(set(sizes.values())) > 1 or not all(sizes.values()):
            raise DataError(f"the inputs of a batch have different numbers of samples, or none: {sizes}")
        return next(iter(sizes.values()), 1)

    def _cut(self, feeds: Mapping[str, Array], piece: slice) -> dict[str, Array]:
        cut = {}
        for name in self.backward.inputs:
            axis = self.axes.get(name, 0)
            cut[name] = feeds[name] if axis is None else feeds[name][(slice(None),) * axis + (piece,)]
        return cut

    def _fitting(self, feeds: Mapping[str, Array], count: int) -> int:
        """The samples of a micro-batch: an equal share of the batch for each that is worked on at a time, or fewer.

        Memory grows evenly with the samples: two runs that are measured tell how much for each, and a third proves it.
        """
        largest = -(-count // self._beside)
        if self.memory is None:
            return largest
        allowed = self.memory / self._beside
        first = self._measured(feeds, 1)
        if first > allowed:
            self.backward, self._runs = self._frugal(), []
            first = self._measured(feeds, 1)
        if first > allowed:
            raise DataError(
                f"a step on one sample takes {first >> 20} MiB, even where layers are computed twice, and "
                f"{int(allowed) >> 20} MiB are allowed; allow more, train only what lies behind the middle of the "
                "network, or take smaller samples"
            )
        second_size = min(max(2, largest // 4), largest)
        second = self._measured(feeds, second_size)
        each = max((second - first) / max(second_size - 1, 1), 1.0)
        micro = max(1, min(largest, int(1 + (allowed - first) / each)))
        while micro > 1 and self._measured(feeds, micro) > allowed:
            micro = max(1, micro * 3 // 4)
        return micro

    def _measured(self, feeds: Mapping[str, Array], samples: int) -> int:
        run = self._places(1)[0][0]
        piece = self._cut(feeds, slice(0, samples))
        with Peak() as peak:
            run(piece, shrink=True)
        # What is reused does not show; the samples themselves are there in any case.
        return max(peak.bytes, sum(array.nbytes for array in piece.values()))
