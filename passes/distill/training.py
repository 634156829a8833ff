"""Training the student end to end: the rate by trial, the best of what held-out samples saw kept.

A learning rate is a share of what a parameter is: each moves in steps of its channel's root mean square (as Adafactor's
relative steps, Shazeer and Stern 2018, section 8), since weights behind a folded BatchNormalization differ a
thousandfold in size from layer to layer, and one rate for all of them ruins some while others stand still.

Short runs at several rates tell which to take. Each is the whole way in small: from the same start, on the same
samples, the rate rises and falls to nothing, and the loss of what is learned at the end, when it has settled, judges
it. Held-out answers are no judge of a few steps: those of a student of random weights grow worse before they grow
better, at every rate but the smallest.

Then the rate rises, and falls by half a cosine. At every twentieth of the way the moving average of the parameters is
judged on the held-out samples; the best is what stays. Where the loss is no number, or what was held out says that the
student runs away, it is taken back to the best, and the rate halved.
"""

from __future__ import annotations

import io
import json
import math
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ModelError
from ...ir.graph import Graph, Value
from ...runtime.archive import DAMAGED
from ...runtime.columns import Array
from ...runtime.training.optimizer import AdamW
from ...runtime.training.parameters import Floats, Parameters
from ...runtime.training.schedule import Cosine, Schedule
from ...runtime.training.trainer import Trainer
from ...storage.fingerprint import Fingerprint
from ...storage.plain import plain, restored
from ..base import Draft, Moment
from .batches import Batches, TaughtRows
from .loss import Term, append_loss, drop_loss, variance_of
from .parameters import Parameter

RATES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4)
"""Rates that are tried, in root mean squares of a channel a step; the middle one first."""
TRIED = 30
"""A trial has one of so many parts of the steps, ..."""
TRIAL = (16, 200)
"""... but no fewer and no more than these."""
WARMER = 10
"""How many times the rate of the best trial is taken at most, as the way is so many times as long: in few steps small
rates gain most. A thinned ResNet-20 liked .0003 to .001 best in 33 steps, and .01 in 200. Held-out
loss after 120 steps at the rate of the trial, and at the raised one: a thinned keyword spotter from .156 to .150, .134;
a thinned small ResNet from .0064 to .0049, .0045; a factorised depthwise-separable network from .041 to .027, .024."""
WARMEST = 1e-2
"""The rate beyond which none is raised so."""
SETTLED = 4
"""What is learned in the last of so many parts of a trial judges its rate."""
JUDGED = 20
"""How often the way is judged."""
APART = 8
"""The fewest steps between two judgements: fewer tell nothing but noise."""
AVERAGED = 20
"""The moving average is one of the last of so many parts of the way, ..."""
FEWEST = 10
"""... but of no fewer steps than these."""
LEAST = 0.1
"""The step of a channel of small weights, as a share of that of its whole tensor."""
RUNAWAY = 1.5
"""The held-out loss from which the student is taken back, as a multiple of the best."""
TOO_WARM = 1.25
"""The same where the rate is above that of the trials. A thinned MobileNetV2 at 7 times the rate of its trials fell by
2 to 4 points on other images, whatever the held-out ones said."""
LOWERED = 3
"""What divides a rate above that of the trials when it is taken back, to that at the least."""
PATIENCE = 5
"""How often the rate is halved before the best is left as it is."""
KEPT = 20.0
"""Seconds between two drafts."""
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
            view[...] = whole * kinds[value].pace
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


@dataclass(slots=True)
class Way:
    """How far a training is: `steps` to take and those `done`; those of the present `leg`, which is one fall of the
    `rate`; the rate that was best when `tried`, of which that may be a multiple; how often it was taken back, and how
    often because a loss was no number."""

    steps: int = 0
    rate: float = 0.0
    leg: int = 0
    done: int = 0
    tried: float = 0.0
    taken_back: int = 0
    not_numbers: int = 0

    @property
    def given_up(self) -> bool:
        return self.taken_back > PATIENCE

    @property
    def schedule(self) -> Cosine:
        return Cosine(self.rate, self.leg, warmup=max(self.leg // 20, 1))


def trial_of(steps: int) -> int:
    """The steps of a trial before so many."""
    return min(max(steps // TRIED, TRIAL[0]), TRIAL[1])


def onward(rate: float, steps: int) -> float:
    """The rate of so many steps, where that of their trials was `rate`."""
    return max(rate, min(rate * min(steps / trial_of(steps), WARMER), WARMEST))


def average_over(steps: int) -> float:
    """The decay of the moving average on a way of so many steps."""
    return 1.0 - 1.0 / max(steps / AVERAGED, FEWEST)


class Training:
    """The student, of which the parameters of `trainer` move, learning from `batches`; `judge` knows the held-out loss.

    `best` are the parameters that the judge liked best, at first those that the student came with. `draft` keeps how
    far the training is, every `KEPT` seconds, for a run that goes on after this one was killed. What the judge sees of
    a `coarse` student, whose numbers are rounded, jumps about: it runs away only where it is worse than at its start.
    """

    def __init__(
        self,
        trainer: Trainer,
        batches: Batches | TaughtRows,
        judge: Judge,
        draft: Draft | None = None,
        *,
        coarse: bool = False,
    ) -> None:
        self.trainer = trainer
        self.batches = batches
        self.judge = judge
        self.draft = draft
        self.coarse = coarse
        self.parameters = trainer.parameters
        self.first = self.parameters.flat.copy()
        self.best = self.first
        self.start = self.loss = judge()
        self.curve = [Moment(0, None, self.start)]
        self.step = 0
        self.trials = 0
        """Steps of all trials."""
        self.way = Way()
        self.resumed = False
        self._kept = time.perf_counter()

    def try_rates(self, rates: Sequence[float], steps: int, tick: Tick) -> float:
        """The one of `rates`, the largest first, at the end of whose trial the loss of what is learned is least: from
        the middle one on, down or else up, as long as it falls. A trial has so many steps; what it gains is kept."""
        first, start = self.step, self.best
        losses: dict[int, float] = {}

        def better(one: int, other: int) -> bool:
            for number in (one, other):
                if number not in losses:
                    self.step = first
                    losses[number] = self._try(start, rates[number], steps, tick)
                    self.trials += steps
                    self._keep(self._judged())
            return losses[one] < losses[other]

        at = begin = (len(rates) - 1) // 2
        while at + 1 < len(rates) and better(at + 1, at):
            at += 1
        while at <= begin and at > 0 and better(at - 1, at):
            at -= 1
        return rates[at]

    def try_start(self, rate: float, steps: int, tick: Tick) -> float:
        """The loss of what is learned at the end of a trial from where the student is; what it gains is not kept."""
        first = self.step
        loss = self._try(self.best, rate, steps, tick)
        self.step = first
        self.parameters.flat[...] = self.best
        return loss

    def _try(self, start: Floats, rate: float, steps: int, tick: Tick) -> float:
        """The whole way in so many steps from `start`; the loss of what is learned when it has settled."""
        self._restart(start, Cosine(rate, steps, warmup=max(steps // 4, 1)))
        last = max(steps // SETTLED, 1)
        self._learn(steps - last, tick)
        loss = self._learn(last, tick)
        return loss if math.isfinite(loss) else math.inf

    def begin(self, steps: int, rate: float, tried: float | None = None) -> None:
        """Set out for so many steps from the best so far; `rate` may be above the one that was best in trials."""
        self.way = Way(steps, rate, tried=rate if tried is None else tried)
        self._set_out()
        self._save()

    def run(self, tick: Tick) -> None:
        """Go the rest of the way."""
        way = self.way
        while way.done < way.steps and not way.given_up:
            part = min(max(math.ceil(way.steps / JUDGED), APART), way.steps - way.done)
            loss = self._learn(part, tick)
            way.done += part
            judged = self._judged()
            self.curve.append(Moment(self.step, loss if math.isfinite(loss) else None, judged))
            self._turn(loss, judged)
            if time.perf_counter() - self._kept > KEPT:
                self._save()
        self.parameters.flat[...] = self.best
        if self.draft is not None:
            self.draft.save(b"")  # nothing is left to go on with

    def _turn(self, loss: float, judged: float) -> None:
        """Go on, from here or from the best, as the last judgement says."""
        way = self.way
        raised = way.rate > way.tried
        bound = (TOO_WARM if raised else RUNAWAY) * max(self.start if self.coarse else self.loss, 1e-12)
        if self._keep(judged) or (math.isfinite(loss) and judged <= bound):
            return
        way.taken_back += 1
        way.not_numbers += not math.isfinite(loss)
        way.rate = max(way.rate / LOWERED, way.tried) if raised else way.rate / 2
        self._set_out()

    def _set_out(self) -> None:
        self.way.leg = self.way.steps - self.way.done
        self._restart(self.best, self.way.schedule)

    def _restart(self, flat: Floats, schedule: Schedule) -> None:
        self.trainer.average = average_over(schedule.steps)
        self.trainer.restart(flat, schedule)

    def _keep(self, judged: float) -> bool:
        """Take the moving average for the best where its held-out loss is the least so far; whether it is."""
        if judged >= self.loss:
            return False
        self.loss, self.best = judged, self._average().copy()
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

    def _learn(self, steps: int, tick: Tick) -> float:
        """So many steps; the mean of their losses, which is no number where one of them is none."""
        total = 0.0
        for feeds in self.batches.steps(self.step, steps):
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
        judged = self.judge()
        flat[...] = own
        return judged if math.isfinite(judged) else math.inf

    # -- drafts

    def _save(self) -> None:
        """Keep how far the training is; where that cannot be written, it goes on without."""
        if self.draft is None:
            return
        record = {"way": plain(self.way), "curve": plain(self.curve), "loss": self.loss, "step": self.step,
                "from": _digest(self.first)}  # fmt: skip
        file = io.BytesIO()
        arrays = {f"trainer.{name}": array for name, array in self.trainer.state().items()}
        np.savez(file, allow_pickle=False, record=np.array(json.dumps(record)), best=self.best, **arrays)
        self.draft.save(file.getvalue())
        self._kept = time.perf_counter()

    def resume(self) -> bool:
        """Go on from the draft; whether there is one of this training, and of this start."""
        document = None if self.draft is None else self.draft.load()
        if document is None:
            return False
        try:
            arrays = _arrays(document)
            record = json.loads(str(arrays.pop("record")))
            best = arrays.pop("best")
            if record["from"] != _digest(self.first):
                return False
            way: Way = restored(Way, record["way"])
            curve: list[Moment] = restored(list[Moment], record["curve"])
            loss, step = restored(float, record["loss"]), restored(int, record["step"])
            if (best.shape, best.dtype) != (self.best.shape, self.best.dtype) or not 0 <= way.done <= way.steps:
                return False
            self.trainer.go_on({name.removeprefix("trainer."): array for name, array in arrays.items()})
        except DAMAGED:
            return False
        self.way, self.curve, self.best = way, curve, best.astype(np.float32, copy=False)
        self.loss, self.step = loss, step
        self.trainer.schedule, self.trainer.average = way.schedule, average_over(way.leg)
        self.resumed = True
        return True


def trainer_of(
    graph: Graph, term: Term, answers: Floats, kinds: Mapping[Value, Parameter], threads: int
) -> tuple[Trainer, Parameters] | None:
    """What trains the parameters `kinds` of a graph, which stays as it is, to come near `answers` at one term, by the
    mean square in shares of their variance; none where no gradient reaches a parameter."""
    loss = append_loss(graph, [term], {term: variance_of(term, [answers])}, 1.0)
    masks = {value: one.mask for value, one in kinds.items() if one.mask is not None}
    parameters = Parameters(list(kinds), masks=masks)
    optimizer = AdamW(scale=sizes(parameters, kinds, channel_axes(kinds)))
    try:
        trainer = Trainer(graph, loss, parameters, optimizer=optimizer, average=average_over(1), threads=threads)
    except ModelError:
        return None
    finally:
        drop_loss(graph)
    return trainer, parameters


def _arrays(document: bytes) -> dict[str, Array]:
    """The arrays of a draft, which are stored as they are: what is packed could unpack to any size."""
    with zipfile.ZipFile(io.BytesIO(document)) as archive:
        if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
            raise ValueError("an array is packed")
    with np.load(io.BytesIO(document), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _digest(flat: Floats) -> str:
    fingerprint = Fingerprint()
    fingerprint.write(flat.data.cast("B"))
    return fingerprint.text
