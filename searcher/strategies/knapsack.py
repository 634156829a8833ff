"""The exact answer of what is predicted, corrected by what is measured, again and again.

Every candidate that is judged corrects the prediction, so the next answer is another one. Where it is not, its
neighbourhood is looked at: caps a little wider or tighter, and one family of options taken to lose more or less than
is believed, in turns.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..additive import cheapest_loss
from ..reach import cheapest
from ..space import Pick
from ..task import Task

_VARIANTS = 24


def propose(task: Task) -> Iterator[Pick]:
    seen: set[Pick] = set()
    turn = 0
    while True:
        fresh = next((pick for pick in answers(task, turn) if pick not in seen), None)
        if fresh is None:
            turn += 1
            if turn > _VARIANTS:
                return
            continue
        seen.add(fresh)
        yield fresh


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
