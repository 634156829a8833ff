"""Training the student end to end: the rate by trial, the best of what held-out samples saw kept.

A learning rate is a share of what a parameter is: each moves in steps of its channel's root mean square (as Adafactor's
relative steps, Shazeer and Stern 2018, section 8), since weights behind a folded BatchNormalization differ a
thousandfold in size from layer to layer, and one rate for all of them ruins some while others stand still.

Short runs at several rates from the same start tell which to take. Then the rate rises, and falls by half a cosine. At
every twentieth of the way the moving average of the parameters is judged on the held-out samples; the best is what
stays. Where the loss is no number, or what was held out says that the student runs away, it is taken back to the best,
and the rate halved.

The samples themselves come first. Once they are known by heart, so that held-out ones gain no more, views of them
follow (`views`), from the best on. Shown views at once, a small student learns them at the expense of the samples: a
network for digits that lost channels rose from a KL of .085 to .110 in 60 steps, and fell to .055 without.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...ir.graph import Value
from ...runtime.training.parameters import Floats, Parameters
from ...runtime.training.schedule import Constant, Cosine, Schedule
from ...runtime.training.trainer import Trainer
from .lessons import Lessons, Rows
from .parameters import Parameter

RATES = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4)
"""Rates that are tried, in root mean squares of a channel a step."""
CALMER = 0.5
"""The rate taken, as a share of the one whose trial did best: what is quickest in a few steps is unsteady in many."""
TRIED = 12
"""Steps of a trial."""
JUDGED = 20
"""How often the way is judged."""
APART = 8
"""The fewest steps between two judgements: fewer tell nothing but noise."""
AVERAGE = 0.95
"""Decay of the moving average."""
LEAST = 0.1
"""The step of a channel of small weights, as a share of that of its whole tensor."""
RUNAWAY = 1.5
"""The held-out loss from which the student is taken back, as a multiple of the best."""
PATIENCE = 3
"""How often the rate is halved before the best is left as it is."""
BY_HEART = 3
"""Judgements in a row without a gain that say that the samples are known by heart."""

Judge = Callable[[], float]
"""The held-out loss of the student as its parameters are now."""
Tick = Callable[[float], None]
"""Told of each step."""


def sizes(parameters: Parameters, kinds: Mapping[Value, Parameter], channel_axes: Mapping[Value, int]) -> Floats:
    """The root mean square of each parameter's channel, a buffer like theirs; at least `LEAST` of its tensor's."""
    scale = np.empty_like(parameters.flat)
    for value in parameters.leaders:
        numbers = np.square(parameters.view(parameters.flat, value), dtype=np.float64)
        whole = math.sqrt(float(numbers.mean())) or 1.0
        view = parameters.view(scale, value)
        if kinds[value].kind != "weight" or numbers.ndim < 2:
            view[...] = whole
            continue
        axis = channel_axes.get(value, 0) % numbers.ndim
        other = tuple(i for i in range(numbers.ndim) if i != axis)
        view[...] = np.maximum(np.sqrt(numbers.mean(axis=other, keepdims=True)), LEAST * whole)
    return scale


def channel_axes(moving: Mapping[Value, Parameter]) -> dict[Value, int]:
    """The axis of each weight that counts output channels."""
    axes = {}
    for value in moving:
        node = value.users[0]
        plain = node.op in ("Conv", "LSTM", "GRU", "RNN") or (node.op == "Gemm" and node.get_int("transB"))
        axes[value] = 0 if plain else -1 if node.op in ("Gemm", "MatMul") else 1
    return axes


class Training:
    """The student `graph`, of which `parameters` move, learning from `lessons`; `judge` knows the held-out loss.

    `best` are the parameters that the judge liked best, at first those that the student came with.
    """

    def __init__(self, trainer: Trainer, lessons: Lessons | Rows, judge: Judge) -> None:
        self.trainer = trainer
        self.lessons = lessons
        self.judge = judge
        self.parameters = trainer.parameters
        self.best = self.parameters.flat.copy()
        self.start = self.loss = judge()
        self.curve: list[tuple[int, float, float]] = []
        self.step = 0

    def try_rates(self, rates: Sequence[float], tick: Tick) -> tuple[float, float]:
        """A rate below the one after whose trial the held-out loss is least, of `rates` from the largest on, and the
        seconds of a step."""
        losses: dict[float, float] = {}
        start, begin = self.best, time.perf_counter()
        for rate in rates:
            self._restart(start, Constant(rate, TRIED, warmup=TRIED // 3))
            self._learn(TRIED, tick)
            losses[rate] = self._judged()
            self._keep(losses[rate])
            if min(losses.values()) < min(self.start, losses[rate]):
                break  # smaller ones do less
        seconds = (time.perf_counter() - begin) / (TRIED * len(losses))
        return CALMER * min(losses, key=lambda rate: losses[rate]), seconds

    def run(self, steps: int, rate: float, tick: Tick) -> int:
        """Train for so many steps; returns how often the student was taken back."""
        taken_back = idle = done = 0
        self._restart(self.best, _course(rate, steps))
        while done < steps and taken_back <= PATIENCE:
            part = min(max(math.ceil(steps / JUDGED), APART), steps - done)
            loss = self._learn(part, tick)
            done += part
            judged = self._judged()
            self.curve.append((done, loss, judged))
            if self._keep(judged):
                idle = 0
                continue
            idle += 1
            if not math.isfinite(loss) or judged > RUNAWAY * max(self.loss, 1e-12):
                taken_back += 1
                rate /= 2
            elif idle < BY_HEART or self.lessons.viewed or not self.lessons.views.views:
                continue
            else:
                self.lessons.viewed = True
            idle = 0
            self._restart(self.best, _course(rate, steps - done))
        self.parameters.flat[...] = self.best
        return taken_back

    def _keep(self, loss: float) -> bool:
        """Take the moving average for the best where its held-out loss is the least so far; whether it is."""
        if loss >= self.loss:
            return False
        self.loss, self.best = loss, self._average().copy()
        return True

    def offer(self, flat: Floats) -> bool:
        """Take `flat` for the best where its held-out loss is the least so far; whether it is."""
        self.parameters.flat[...] = flat
        judged = self.judge()
        if math.isfinite(judged) and judged < self.loss:
            self.loss, self.best = judged, flat.copy()
            return True
        self.parameters.flat[...] = self.best
        return False

    def _restart(self, flat: Floats, schedule: Schedule) -> None:
        self.trainer.restart(flat, schedule)

    def _learn(self, steps: int, tick: Tick) -> float:
        """So many steps; the mean of their losses, which is no number where one of them is none."""
        total = 0.0
        for feeds in self.lessons.steps(self.step, steps):
            total += self.trainer.step(feeds)
            self.step += 1
            tick(1)
        return total / max(steps, 1)

    def _average(self) -> Floats:
        averaged = self.trainer.averaged
        assert averaged is not None
        return averaged

    def _judged(self) -> float:
        """The held-out loss of the moving average."""
        flat = self.parameters.flat
        own = flat.copy()
        flat[...] = self._average()
        loss = self.judge()
        flat[...] = own
        return loss if math.isfinite(loss) else math.inf


def _course(rate: float, steps: int) -> Cosine:
    return Cosine(rate, steps, warmup=max(steps // 20, 1))
