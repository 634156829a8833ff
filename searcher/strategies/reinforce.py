"""A policy network that picks option by option, taught by REINFORCE with a baseline (Williams 1992).

As in the searches of NASNet and AMC the network sees features and not names: of each option what it loses and leaves,
and how large a part of the model its site is. One hidden layer scores the options of a site, a softmax draws among
them. A reward is the predicted loss on a logarithmic scale with a price on what is above the caps; the prediction
follows what was built, and so does the policy. Proposed is the best pick drawn, brought within the caps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...runtime.training.optimizer import AdamW
from ..repair import repaired
from ..space import Pick, Space
from ..task import Task

HIDDEN, EPISODES, BATCHES = 24, 16, 40
PRICE = 20.0
"""What a cap that is exceeded by all of it takes from the reward, in nats of loss."""
RATE, BASELINE = 0.03, 0.8

Array = NDArray[np.float64]


def propose(task: Task) -> Iterator[Pick]:
    policy = Policy(task.space, task.random)
    seen = {one.pick for one in task.judged}
    while True:
        drawn: dict[Pick, float] = {}
        for _ in range(BATCHES):
            episodes = [policy.draw() for _ in range(EPISODES)]
            rewards = np.array([reward(task, pick) for pick, _ in episodes])
            policy.learn([places for _, places in episodes], rewards)
            drawn |= {pick: float(value) for (pick, _), value in zip(episodes, rewards, strict=True)}
        fresh = sorted((pick for pick in drawn if pick not in seen), key=lambda pick: -drawn[pick])[:3]
        within = [pick for pick in (repaired(task, one) for one in fresh) if pick not in seen]
        pick = min(within, key=task.predicted, default=policy.draw()[0])
        seen.add(pick)
        yield pick


def reward(task: Task, pick: Pick) -> float:
    excess, loss = task.predicted(pick)
    return -float(np.log(loss + 1e-9)) - PRICE * excess


class Policy:
    """Scores tanh(x W + b) v of the options x of each choice; the form is the first choice."""

    def __init__(self, space: Space, random: np.random.Generator) -> None:
        self._space, self._random = space, random
        seen = features(space)
        self._there, self._features = np.isfinite(seen[:, :, 0]), np.nan_to_num(seen)
        width = self._features.shape[2]
        shapes = (width, HIDDEN), (HIDDEN,), (HIDDEN,)
        self._sizes = [int(np.prod(shape)) for shape in shapes]
        self._shapes = shapes
        self._flat = (0.3 * random.standard_normal(sum(self._sizes))).astype(np.float32)
        self._adam = AdamW()
        self._state = self._adam.state(len(self._flat))
        self._step = 0
        self._baseline: float | None = None

    def _parts(self, flat: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        parts = np.split(flat, np.cumsum(self._sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _chances(self) -> tuple[Array, Array]:
        """The chance of each option (choices, options), and what the hidden layer made of it."""
        weight, bias, out = self._parts(self._flat)
        hidden = np.tanh(self._features @ weight + bias)
        scores = np.where(self._there, hidden @ out, -np.inf)
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        return exponents / exponents.sum(axis=1, keepdims=True), hidden

    def draw(self) -> tuple[Pick, NDArray[np.intp]]:
        """A pick, and the place that was drawn for each choice."""
        chances, _ = self._chances()
        bounds = chances.cumsum(axis=1)
        places = (self._random.random((len(bounds), 1)) > bounds / bounds[:, -1:]).sum(axis=1)
        form = self._space.forms[int(places[0])]
        return self._space.within(Pick(form, tuple(map(int, places[1:])))), places

    def learn(self, episodes: list[NDArray[np.intp]], rewards: Array) -> None:
        """A step along the gradient of the mean reward above the baseline."""
        mean = float(rewards.mean())
        self._baseline = mean if self._baseline is None else BASELINE * self._baseline + (1 - BASELINE) * mean
        scale = max(float(rewards.std()), 1e-6)
        chances, hidden = self._chances()
        slope = np.zeros_like(chances)  # of the mean reward by the scores
        rows = np.arange(len(chances))
        for places, value in zip(episodes, rewards, strict=True):
            gain = (value - self._baseline) / scale / len(episodes)
            slope -= gain * chances
            slope[rows, places] += gain
        _, _, out = self._parts(self._flat)
        inner = slope[:, :, None] * out * (1.0 - hidden**2)
        parts = [
            np.einsum("sof,soh->fh", self._features, inner),
            inner.sum(axis=(0, 1)),
            np.einsum("so,soh->h", slope, hidden),
        ]
        upward = np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)
        self._step += 1
        self._adam.move(self._flat, -upward, self._state, self._step, RATE)


def features(space: Space) -> Array:
    """What the policy sees of each option (choices, options, features); NaN marks places that have none."""
    most = max([len(space.forms), *(len(site.options) for site in space.sites)])
    shares = {layer.name: layer.macs / max(space.macs, 1.0) for layer in space.layers}
    weights = {layer.name: layer.params / max(space.params, 1.0) for layer in space.layers}
    kinds = ("channels", "blocks", "replacement", "structure", "bits", "activations")
    seen = np.full((1 + len(space.sites), most, 11 + len(kinds)), np.nan)
    for i in range(len(space.forms)):
        seen[0, i] = 0.0
        seen[0, i, min(i, 3)] = 1.0
    for number, site in enumerate(space.sites, start=1):
        work = sum(shares[name] for name in site.reach)
        stored = sum(weights[name] for name in site.reach)
        for i, option in enumerate(site.options):
            loss = np.log10(option.loss + 1e-9) / 9.0
            own = [
                loss,
                option.macs,
                option.params,
                option.time,
                option.kept,
                option.bits / 32.0,
                work,
                stored,
                i / most,
            ]
            seen[number, i] = [*own, float(option.measured), 1.0, *(float(site.kind == kind) for kind in kinds)]
    return seen
