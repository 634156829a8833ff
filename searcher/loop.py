"""The search itself: survey, propose, build, judge, and the best kept on disk, for as long as it may take.

First come the pipelines on their defaults, and, until one keeps the budget, the single ones that a user would try by
hand: however short the time, the answer is no worse than what there was time for of these. Then the database is filled,
the candidates that change nothing but the form are built, and the strategy proposes; what is left of the single
pipelines comes after its first candidate, those that take a share of the work once more with the share that their costs
ask for. What is left at the end of the time is for teaching (`distill`): what loses least before it need not do so
behind it, so the best candidate of each kind has a short lesson, and the best of these a long one. Held-out samples say
what is kept.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..compiler.compilation import compile_with
from ..compiler.data import source_of
from ..compiler.model import Model
from ..compiler.options import Options
from ..errors import ModelError
from ..ir.graph import Graph
from ..passes.base import Context, Progress
from ..passes.cached import environment, own_code
from ..runtime.identity import identity
from ..storage.fingerprint import Fingerprint
from .judge import Judge, Judged
from .order import Wanted
from .pipelines import Single, common, singles
from .plan import Plan, kind_of, plan_of, with_lesson
from .space import Pick, Space, unsurveyed
from .strategies import strategy
from .surrogate import Surrogate
from .survey import Survey, surveyor
from .task import Aim, Task

KNOWN = 0.25
"""The share of the time after which no further single pass is begun before the survey."""
SURVEY = 0.5
"""The most of the time left that a survey may take."""
TEACHING = 0.5
"""The share of the time that is left for teaching the best candidate."""
BY_HAND = 0.3
"""The most of the time that goes to single pipelines."""
NEARER = 2
"""How often a single pipeline is tried again with the share of work that its costs ask for."""
LESSONS, SHORT = 4, 0.1
"""Kinds of candidates that are taught first, and the share of the time of teaching that each has."""
LEAST_TEACHING = 10.0
"""Seconds of teaching below which it is not begun."""
STALE = 30
"""Proposals in a row that were judged before, after which a strategy has no more to say."""

Tell = Callable[[Judged, Task], None]
"""Told of each candidate as it is judged."""


@dataclass(slots=True)
class Loop:
    """One search that goes on, for so many `seconds` and `most` candidates (0: as many as there is time for).

    `improved` is called with each candidate that is better than all before it.
    """

    judge: Judge
    wanted: Wanted
    strategy: str
    seconds: float
    most: int
    progress: Progress
    improved: Tell
    begin: float
    task: Task | None = None
    earlier: Judged | None = None
    recalled: int = 0
    begun: int = 0
    singles: list[Single] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.begin

    @property
    def enough(self) -> bool:
        """Whether there are as many candidates as were asked for."""
        return 0 < self.most <= self.begun

    @property
    def left(self) -> float:
        """Seconds that are left; none where there are candidates enough."""
        return 0.0 if self.enough else self.seconds - self.elapsed

    def run(self, model: Model, key: str, *, teaches: bool) -> Task:
        """Search until the time is up, or the strategy has no more to propose.

        Raises `ModelError` where no layer can change.
        """
        wanted = self.wanted
        whole, space = Pick(wanted.forms[0], ()), unsurveyed(wanted.forms)
        first = self._begin(plan_of(space, whole), "as it is", whole).judged()
        if first.figures.failed:  # no pass of a candidate is to blame: what is wrong says so itself
            self.judge.build(first.plan, None, {})
        aim = Aim.of(wanted.budget, first.figures.whole, timed=wanted.timed)
        task = self.task = Task(space, aim, np.random.default_rng(wanted.options.seed), Surrogate(space))
        self._recall()
        self._learn(first)
        self.singles = singles(aim, wanted.forms)
        needed, others = map(deque, common(aim, wanted.forms))
        try:
            self._judge_all(self._common(task, needed, others))
            if self.elapsed < self.seconds:
                self._survey(model, key, task)
            self._judge_all(self._forms(task.space))
            teaching = TEACHING * self.left if teaches else 0.0
            self._judge_all(self._candidates(task, teaching, [*needed, *others]))
        finally:
            self._join()
        if teaches:
            self._teach(task)
        return task

    def _recall(self) -> None:
        """Have the best of what a search like this one left on disk again, before others can take its place."""
        plan = self.judge.remembered()
        if plan is not None and plan.passes != "clean":
            waiting = self.judge.begin(plan)
            if waiting.recalled and (figures := waiting.figures()).met:
                assert self.task is not None
                taught = "distill" in plan.passes
                self.earlier = Judged(None, taught, plan, figures, "earlier", self.elapsed)
                self.improved(self.earlier, self.task)

    def _join(self) -> None:
        """Let the best of an earlier search be a candidate where it was not met again."""
        task, earlier = self.task, self.earlier
        if task is not None and earlier is not None and all(one.plan != earlier.plan for one in task.judged):
            task.learn(earlier)

    def _survey(self, model: Model, key: str, task: Task) -> None:
        """Fill the database. Raises `ModelError` where no layer can change."""
        deadline = time.monotonic() + SURVEY * (self.seconds - self.elapsed)
        spaces: list[Space] = []

        def look(graph: Graph, ctx: Context) -> None:
            wanted = self.wanted
            spaces.append(Survey(graph, ctx, self.judge.store, key, deadline, wanted.forms, wanted.timed).space())

        options = replace(
            self.wanted.options,
            passes=surveyor(look),
            guard=False,
            budget=None,
            output=None,
            check=False,
            cache=None,
            progress=self.progress,
            lock=None,
        )
        compile_with(model, options)
        (space,) = spaces
        if not space.sites and not space.unseen:
            raise ModelError("no layer of this model can change: there is nothing to search among")
        # What is stored is judged by the file, which has more in it than weights.
        task.enter(replace(space, bytes=task.judged[0].figures.whole.get("size", space.bytes)))

    def _judge_all(self, candidates: Iterator[Begun | None]) -> None:
        """Judge candidates, several side by side where there are workers, and learn from them in their order. `None`
        is none, until more has been learned."""
        waiting: deque[Begun] = deque()
        for one in candidates:
            if one is not None:
                waiting.append(one)
            if waiting and (one is None or len(waiting) >= self.judge.beside):
                self._learn(waiting.popleft().judged())
        while waiting:
            self._learn(waiting.popleft().judged())

    def _common(self, task: Task, needed: deque[Plan], others: deque[Plan]) -> Iterator[Begun]:
        """The pipelines that are `needed`, and of the `others` those up to the first that keeps the budget; one of
        them whatever the time. Those that are begun are taken from the front."""
        begun = 0
        while needed or (others and not any(one.figures.met for one in task.judged)):
            time_is_up = self.elapsed > (1.0 if needed else KNOWN) * self.seconds
            if self.enough or (begun and time_is_up):
                return
            begun += 1
            yield self._begin((needed or others).popleft(), "single")

    def _forms(self, space: Space) -> Iterator[Begun]:
        """What changes nothing but the form."""
        for form in space.forms[1:]:
            if self.left > 0:
                pick = space.within(space.pick(form))
                yield self._begin(plan_of(space, pick), "as it is", pick)

    def _candidates(self, task: Task, reserved: float, rest: Sequence[Plan]) -> Iterator[Begun | None]:
        """What is proposed, `None` where that is nothing new; the `rest` of the pipelines after the first proposal, for
        a part of the time."""
        seen = {one.pick for one in task.judged if one.pick is not None}
        stale = 0
        ready, by_hand = self._by_hand(task, rest), self.elapsed + BY_HAND * self.left
        for pick in self._proposals(task):
            fresh = task.space.within(pick)
            stale = stale + 1 if fresh in seen else 0
            if self.left <= reserved or stale > STALE:
                return
            if fresh not in seen:
                seen.add(fresh)
                yield self._begin(plan_of(task.space, fresh), self.strategy, fresh)
            else:
                yield None
            while self.left > 0.0 and self.elapsed <= by_hand and (plan := next(ready, None)) is not None:
                yield self._begin(plan, "single")

    def _by_hand(self, task: Task, rest: Sequence[Plan]) -> Iterator[Plan]:
        """The `rest` of the single pipelines, and then each with the share of work that what it cost asks for."""
        yield from rest
        for _ in range(NEARER):
            for i, one in enumerate(self.singles):
                costs = next((judged.figures.costs for judged in task.judged if judged.plan == one.plan), {})
                if (nearer := one.nearer(task.aim, costs)) is not None:
                    self.singles[i] = nearer
                    yield nearer.plan

    def _proposals(self, task: Task) -> Iterator[Pick]:
        return strategy(self.strategy)(task)

    def _teach(self, task: Task) -> None:
        """Teach the best candidates of their kinds in short, and the best of these in the time that is left."""
        best: dict[tuple[str, ...], Judged] = {}
        for one in sorted(task.judged, key=lambda one: task.aim.order(one.figures)):
            if not one.figures.failed and (one.plan.passes not in ("clean", "quant") or one.plan.overrides):
                best.setdefault(kind_of(one.plan), one)
        pupils = list(best.values())[:LESSONS]
        # One that is over the budget is taught where none keeps it.
        pupils = [one for one in pupils if one.figures.met] or pupils[:1]
        short = SHORT * self.left
        if len(pupils) > 1 and short >= LEAST_TEACHING:
            lessons = [(one, self._taught(one, short)) for one in pupils]
            pupils = [one for one, _ in sorted(lessons, key=lambda each: task.aim.order((each[1] or each[0]).figures))]
        if pupils:
            self._taught(pupils[0], self.left)

    def _taught(self, one: Judged, seconds: float) -> Judged | None:
        """Teach a candidate so that it takes so many seconds in all; `None` where these are too few."""
        # The passes before it are in the cache; what follows it, and its own trials, take a part of a candidate's time.
        minutes = round((seconds - 0.5 * one.figures.seconds) / 60, 2)
        if 60 * minutes < LEAST_TEACHING:
            return None
        lesson = self._begin(with_lesson(one.plan, minutes), "taught", one.pick, taught=True).judged()
        self._learn(lesson)
        return lesson

    def _begin(self, plan: Plan, word: str, pick: Pick | None = None, *, taught: bool = False) -> Begun:
        waiting = self.judge.begin(plan)
        self.begun += 1
        self.recalled += waiting.recalled

        def judged() -> Judged:
            with self._showing():
                figures = waiting.figures()
            return Judged(pick, taught, plan, figures, word, self.elapsed)

        return Begun(judged)

    def _learn(self, one: Judged) -> None:
        task = self.task
        assert task is not None
        before = [best for best in (task.best, self.earlier) if best is not None]
        task.learn(one)
        order = task.aim.order
        if not one.figures.failed and all(order(one.figures) < order(other.figures) for other in before):
            if one.figures.met:
                self.judge.remember(one.plan)
            self.improved(one, task)

    def _showing(self) -> Showing:
        return Showing(self)


@dataclass(frozen=True, slots=True)
class Begun:
    """A candidate that is being judged; `judged` waits for it."""

    judged: Callable[[], Judged]


class Showing:
    """A bar of the whole search while a candidate is built, which names the best so far."""

    def __init__(self, loop: Loop) -> None:
        best = None if loop.task is None else loop.task.best
        words = "nothing yet" if best is None else best_text(best)
        self._task = loop.progress.task(f"search, best so far: {words}", loop.seconds)
        self._elapsed = loop.elapsed

    def __enter__(self) -> None:
        self._task.__enter__()(self._elapsed)

    def __exit__(self, *error: object) -> None:
        self._task.__exit__(None, None, None)


def best_text(one: Judged) -> str:
    """The figures of a candidate in a few words: `size 0.081x, macs 0.500x, agreement 98.4 %`."""
    figures = one.figures
    words = [f"{metric} {cost:.3f}x" for metric, cost in figures.costs.items() if metric != "params"]
    words += [f"agreement {100 * figures.agreement:.1f} %"] if figures.agreement is not None else []
    return ", ".join(words) + ("" if figures.met else ", over the budget")


def key_of(model_digest: str, options: Options, model: Model) -> str:
    """What the database and the candidates of a search are known by, but for the plan and the budget."""
    source = options.source
    data = identity(source_of(model, source))
    limit = [repr(getattr(source, name, None)) for name in ("mean", "std", "layout", "resize", "limit")]
    shared = replace(
        options, passes="clean", budget=None, output=None, cache=None, data=None, progress=None, observers=()
    )
    return Fingerprint("search", model_digest, data, *limit, repr(shared), own_code(), environment()).text
