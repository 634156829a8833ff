"""Relaxed choices: a softmax over the options of each site, trained down the gradient under a price on the caps.

What a mixture of options costs and loses is a graph of its own (`relaxed`), differentiated as any graph is. Gumbel
noise, which shrinks, lets the softmax try (Jang et al. 2017); Adam moves the logits. The price of the caps is found by
bisection on a scale of ratios, so that what is most likely in the end just keeps them (Nayman et al. 2021,
"HardCoRe-NAS", hold a budget as hard); what still exceeds them is brought within.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...runtime.training.optimizer import AdamW
from ..relaxed import Relaxed
from ..repair import repaired
from ..space import Pick
from ..task import Task

STEPS, RATE, BISECTIONS = 60, 0.15, 5
PRICES = (0.3, 300.0)


def propose(task: Task) -> Iterator[Pick]:
    seen = {one.pick for one in task.judged}
    turn = 0
    while True:
        forms = sorted(task.space.forms, key=lambda form: task.surrogate.weights.get(f"form {form}", 0.0))
        picks = [_descended(task, form, heat=0.3 + 0.3 * (turn % 4)) for form in forms]
        fresh = [pick for pick in (repaired(task, one) for one in picks) if pick not in seen]
        turn += 1
        pick = min(fresh, key=task.predicted, default=picks[0])
        seen.add(pick)
        yield pick


def _descended(task: Task, form: str, heat: float) -> Pick:
    """The pick that is most likely at the least price whose caps are kept; at the highest where none are."""
    relaxed = Relaxed(task, form)
    low, high = PRICES
    best = None
    for _ in range(BISECTIONS):
        price = float(np.sqrt(low * high))
        pick = _at(task, relaxed, price, heat)
        if task.predicted(pick)[0] == 0.0:
            best, high = pick, price
        else:
            low = price
    return best or _at(task, relaxed, PRICES[1], heat)


def _at(task: Task, relaxed: Relaxed, price: float, heat: float) -> Pick:
    shape = relaxed.shape
    logits = np.zeros(shape[0] * shape[1], np.float32)
    adam = AdamW()
    state = adam.state(len(logits))
    for step in range(1, STEPS + 1):
        noise = task.random.gumbel(size=shape) * heat * (1.0 - step / STEPS)
        gradient = relaxed.gradient(logits.reshape(shape) + noise.astype(np.float32), price)
        adam.move(logits, gradient.reshape(-1), state, step, RATE)
    return relaxed.most_likely(logits.reshape(shape))
