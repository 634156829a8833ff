"""Spatial split of a k x k convolution into k x 1 (r filters) and 1 x k: W[o,c,u,v] ~ sum_r P[o,r,v] V[r,c,u].

Started from the singular value decomposition of W* with its rows and columns scaled by the inputs' spread (Jaderberg et
al. 2014, scheme 2), then alternating least squares in the metric H: P has a closed form given V (a regression on the
intermediate tensor, dimension r * kw); V given P is too large for a direct solve (c * kh * r unknowns) and takes
preconditioned conjugate gradient steps, each one n x d x d product. Neither step can raise the loss.

The other order (1 x k first) is the same problem with the kernel's axes exchanged; where it costs the same, both are
begun and the one that is better after a round is fitted to the end (ResNet-20 at half the MACs: 3 % less loss over all
layers than in one order, up to 17 % in one layer).
1 x 1 kernels have nothing to split.

All of it is done on columns in the order (v, c, u): both factors then multiply contiguous matrices. What is found for
one layer once, whatever the rank, is a `Problem`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..walk.target import lost_by
from .conjugate import descend

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

FARTHEST = 4.0
"""How many times less a split may lose once it is fitted than where it begins."""


@dataclass(frozen=True)
class Metric:
    """A metric (d, d) with columns in the order (v, c, u); `inputs` = c * kh is what the first factor reads at a
    position, `taps` = kw how many of these the second reads."""

    hessian: Array
    inputs: int
    taps: int

    @staticmethod
    def of(hessian: Array, kernel: tuple[int, int, int], *, turned: bool = False) -> Metric:
        """For the metric of columns (c, kh, kw), whose sizes are `kernel`; `turned` exchanges the kernel's axes."""
        c, kh, kw = kernel
        order = (1, 0, 2) if turned else (2, 0, 1)
        h = hessian.reshape(*kernel, *kernel).transpose(*order, *(axis + 3 for axis in order))
        return Metric(h.reshape(hessian.shape), *((c * kw, kh) if turned else (c * kh, kw)))

    @cached_property
    def single(self) -> Floats:
        """In single precision, which steps towards a minimum do not tell from double."""
        return self.hessian.astype(np.float32)

    @cached_property
    def spread(self) -> Array:
        """The mean variance of each input of the first factor over the taps of the second, (c * kh,)."""
        return np.asarray(np.diagonal(self.hessian).reshape(self.taps, self.inputs).mean(axis=0))


@dataclass(frozen=True)
class Problem:
    """A layer to split: `weight` (n, d) with columns in the order (v, c, u), in their `metric`."""

    weight: Array
    metric: Metric

    @staticmethod
    def of(weight: Array, metric: Metric, kernel: tuple[int, int, int], *, turned: bool = False) -> Problem:
        """For `weight` (n, d) with columns in the order of `kernel`, as `Metric.of` has it."""
        w = weight.reshape(-1, *kernel).transpose(0, *((2, 1, 3) if turned else (3, 1, 2)))
        return Problem(w.reshape(weight.shape), metric)

    @cached_property
    def crossed(self) -> Array:
        """W* H, (n * kw, c * kh)."""
        return np.asarray((self.weight @ self.metric.hessian).reshape(-1, self.metric.inputs))

    @cached_property
    def begins(self) -> tuple[Array, Array]:
        """Left singular vectors of the scaled weights, brought back to the scale of the inputs, and singular values."""
        scale = np.sqrt(self.metric.spread)
        folded = self.weight.reshape(-1, self.metric.inputs).T * scale[:, None]
        u, s, _ = np.linalg.svd(folded, full_matrices=False)
        return u / scale[:, None], s

    def loss(self, p: Array, v: Array) -> float:
        return lost_by(dense(p, v), self.weight, self.metric.hessian)


def spatial_curve(problems: Sequence[Problem]) -> Array:
    """About the loss of every rank 0..min(c*kh, n*kw), of the better of the orders of `problems`.

    The tail of the scaled singular values is the loss before fitting; three ranks are fitted, and what that gains there
    is carried over to the ranks between.
    """
    tails = np.min([_tails(one.begins[1]) for one in problems], axis=0)
    size = len(tails) - 1
    ranks = [max(size // 8, 1), max(size // 4, 1), max(size // 2, 1)]
    gains = []
    for rank in ranks:
        fitted = best_order(problems, rank, sweeps=2)[0]
        gains.append(np.log(max(fitted, 1e-300) / max(float(tails[rank]), 1e-300)))
    return np.asarray(tails * np.exp(np.interp(np.arange(len(tails)), ranks, gains)))


def _tails(values: Array) -> Array:
    return np.concatenate([np.cumsum((values**2)[::-1])[::-1], [0.0]])


def short_fit(problems: Sequence[Problem], rank: int, allowed: float) -> float:
    """The loss of `rank`, of the better of the orders of `problems`, after two sweeps, or after fewer where it is more
    than `allowed` and will not come down to it.

    A sweep gains no more than the one before; the first is not made where it would have to gain `FARTHEST` times.
    """
    begun = [spatial_split(one, rank, sweeps=0) for one in problems]
    begins = [one.loss(*pair) for one, pair in zip(problems, begun, strict=True)]
    tried = [n for n, lost in enumerate(begins) if lost <= FARTHEST * allowed]
    if not tried:
        return min(begins)
    pairs = {n: spatial_refit(problems[n], *begun[n], sweeps=1) for n in tried}
    once, n = min((problems[n].loss(*pair), n) for n, pair in pairs.items())
    if once * once > allowed * begins[n]:
        return once
    return problems[n].loss(*spatial_refit(problems[n], *pairs[n], sweeps=1))


def best_order(problems: Sequence[Problem], rank: int, *, sweeps: int = 5) -> tuple[float, int, tuple[Array, Array]]:
    """The loss at `rank`, which of `problems` has it, and its P and V. The order that is better after one sweep is
    fitted to the end: the others would differ by no more than a few hundredths then."""
    first = [spatial_split(one, rank, sweeps=1) for one in problems]
    number = int(np.argmin([one.loss(*pair) for one, pair in zip(problems, first, strict=True)]))
    pair = spatial_refit(problems[number], *first[number], sweeps=sweeps - 1)
    return problems[number].loss(*pair), number, pair


def spatial_split(problem: Problem, rank: int, *, sweeps: int = 5, steps: int = 8) -> tuple[Array, Array]:
    """P (n, kw, r) and V (r, c*kh)."""
    u, s = problem.begins
    v = (u[:, :rank] * np.sqrt(s[:rank])).T
    return spatial_refit(problem, _fit_second(v, problem), v, sweeps=sweeps, steps=steps)


def spatial_refit(problem: Problem, p: Array, v: Array, *, sweeps: int = 2, steps: int = 8) -> tuple[Array, Array]:
    """P and V after more sweeps, from those given."""
    for _ in range(sweeps):
        v = _improve_first(p, v, problem, steps)
        p = _fit_second(v, problem)
    a, b = np.linalg.norm(p, axis=(0, 1)), np.linalg.norm(v, axis=1)
    f = np.sqrt(np.maximum(b, 1e-30) / np.maximum(a, 1e-30))  # both factors of every rank equally large
    return p * f, v / f[:, None]


def dense(p: Array, v: Array) -> Array:
    """The weights (n, kw * c * kh) that the pair stands for."""
    return np.asarray((p.reshape(-1, p.shape[2]) @ v).reshape(len(p), -1))


def _fit_second(v: Array, problem: Problem) -> Array:
    """The best P given V: regression on z[w,r] = sum_q V[r,q] x[w,q]."""
    rank, metric = len(v), problem.metric
    size = metric.taps * rank
    read = v @ metric.hessian.reshape(metric.taps, metric.inputs, -1)  # (kw, r, d)
    gram = (read.reshape(-1, metric.inputs) @ v.T).reshape(size, size)
    right = (problem.crossed @ v.T).reshape(-1, size)
    gram[np.diag_indices_from(gram)] += 1e-10 * np.trace(gram) / size
    return np.asarray(np.linalg.solve(gram, right.T).T.reshape(-1, metric.taps, rank))


def _improve_first(p: Array, v: Array, problem: Problem, steps: int) -> Array:
    """Conjugate gradient steps on V for fixed P."""
    n, kw, rank = p.shape
    metric, second = problem.metric.single, p.astype(np.float32).reshape(n * kw, rank)

    def push(one: Floats) -> Floats:
        return np.asarray((second @ one).reshape(n, -1))

    def pull(difference: Floats) -> Floats:
        return np.asarray(second.T @ (difference @ metric).reshape(n * kw, -1))

    scale = np.sum(p**2, axis=(0, 1))[:, None] * problem.metric.spread
    lacks = (problem.weight - dense(p, v)).astype(np.float32)
    step = descend(np.zeros(v.shape, np.float32), lacks, push, pull, scale.astype(np.float32), steps)
    return np.asarray(v + step, np.float64)


def factors(p: Array, v: Array, channels: int, *, turned: bool = False) -> tuple[Array, Array]:
    """The weights of the two convolutions, in the order in which they run."""
    first, second = v.reshape(len(v), channels, -1), p.swapaxes(1, 2)
    return (first[:, :, None], second[..., None]) if turned else (first[..., None], second[:, :, None])


def of_factors(first: Array, second: Array) -> tuple[Array, Array]:
    """P and V of the weights of two convolutions."""
    return second.reshape(*second.shape[:2], -1).swapaxes(1, 2), first.reshape(len(first), -1)


def merged(p: Array, v: Array, channels: int, *, turned: bool = False) -> Array:
    """The k x k weights (n, c*kh*kw) that the pair stands for."""
    whole = dense(p, v).reshape(len(p), p.shape[1], channels, -1)
    return whole.transpose(0, *((2, 1, 3) if turned else (2, 3, 1))).reshape(len(p), -1)
