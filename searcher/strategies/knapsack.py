"""The exact answer of what is predicted, corrected by what is measured, again and again.

Every candidate that is judged corrects the prediction, so the next answer is another one. Where it is not, its
neighbourhood is looked at: caps a little wider or tighter, and one family of options taken to lose more or less than
is believed, in turns. A form that was tried twice is left alone where its answer is predicted to lose far more than the
best candidate did: the time is better spent on others, and on teaching.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..additive import cheapest_loss
from ..reach import cheapest
from ..space import Pick
from ..task import Task

_VARIANTS = 24
TRIED, HOPELESS = 2, 1.5
"""Candidates of a form before it can be hopeless, and how many times as much as the best one it is then to lose."""


def propose(task: Task) -> Iterator[Pick]:
    seen: set[Pick] = set()
    turn = 0
    while True:
        fresh = next((pick for pick in answers(task, turn) if pick not in seen and not hopeless(task, pick)), None)
        if fresh is None:
            turn += 1
            if turn > _VARIANTS:
                return
            continue
        seen.add(fresh)
        yield fresh


def hopeless(task: Task, pick: Pick) -> bool:
    """Whether a pick is predicted to lose far more than one of another form that keeps the budget."""
    tried = sum(one.pick is not None and one.pick.form == pick.form and any(one.pick.at) for one in task.judged)
    if tried < TRIED or not task.aim.limited:
        return False
    others = (one for one in task.judged if one.pick is not None and one.pick.form != pick.form and one.figures.met)
    return task.predicted(pick)[1] > HOPELESS * min((one.figures.loss for one in others), default=np.inf)


def answers(task: Task, turn: int) -> list[Pick]:
    """The answers of all forms, the one predicted to lose least first; from the second turn on with other caps and
    tilted losses."""
    families = sorted({option.family for site in task.space.sites for option in site.options if option.family})
    slack = (1.0, 0.97, 1.02, 0.94)[turn % 4]
    tilt = {}
    if turn and families:
        family = families[(turn - 1) // 2 % len(families)]
        tilt = {family: (0.4, 2.5)[(turn - 1) % 2]}
    caps = {metric: slack * cap for metric, cap in task.aim.caps.items()}
    picks = [pick for form in task.space.forms if (pick := cheapest_loss(task, form, caps, tilt)) is not None]
    if not picks and not turn:  # no pick keeps all caps: what is nearest to each of them
        picks = [cheapest(task, metric) for metric in caps]
    return sorted(picks, key=lambda pick: task.predicted(pick))
