"""What BatchNormalization remembers of a model's input.

Where the input goes through one convolution W (with bias b) into a BatchNormalization, the running mean mu and variance
v of each of its channels o were taken over real inputs x. With m the mean of each input channel, and patches whose
covariance is S[c, d] r^|u - u'| (S between channels, r a correlation per pixel),

    mu_o = sum_c (sum_u W[o, c, u]) m_c + b_o
    v_o  = sum_{c, d} S[c, d] sum_{u, u'} W[o, c, u] W[o, d, u'] r^|u - u'|

both linear in what is unknown once r is fixed: m and S follow from least squares, r from a short list by the residual.
Padding is ignored. It does not fire where the input feeds anything else, or the convolution is grouped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..ir.graph import Node, Value

_CORRELATIONS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97)


@dataclass(frozen=True, slots=True)
class InputStatistics:
    """Mean (channels,) and covariance between channels (channels, channels) of one pixel."""

    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]


def input_statistics(value: Value) -> InputStatistics | None:
    """The statistics of the graph input `value`, or `None` where no BatchNormalization tells them."""
    layer = _first_layer(value)
    if layer is None:
        return None
    conv, norm = layer
    weight = _constant(conv.input(1))
    mean, variance = _constant(norm.input(3)), _constant(norm.input(4))
    if weight is None or mean is None or variance is None:
        return None
    bias = _constant(conv.input(2))
    channels = weight.shape[1]
    weight = weight.reshape(len(weight), channels, *weight.shape[2:])
    total = weight.sum(axis=tuple(range(2, weight.ndim)))
    target = mean if bias is None else mean - bias
    # A little ridge keeps channels that the layer hardly sees at zero mean.
    ridge = 1e-3 * np.trace(total.T @ total) / channels * np.eye(channels)
    m = np.linalg.solve(total.T @ total + ridge, total.T @ target)
    best: tuple[float, npt.NDArray[np.float64]] | None = None
    for correlation in _CORRELATIONS:
        covariance, residual = _covariance(weight, variance, correlation)
        if best is None or residual < best[0]:
            best = residual, covariance
    if best is None or not np.isfinite(best[1]).all() or np.trace(best[1]) <= 0:
        return None
    return InputStatistics(m, best[1])


def _covariance(
    weight: npt.NDArray[np.float64], variance: npt.NDArray[np.float64], correlation: float
) -> tuple[npt.NDArray[np.float64], float]:
    """The positive semi-definite S that fits, and the squared residual of the variances relative to themselves."""
    outputs, channels = weight.shape[:2]
    taps = np.stack([axis.reshape(-1) for axis in np.indices(weight.shape[2:])], 1)
    distance = np.sqrt(((taps[:, None] - taps[None]) ** 2).sum(-1))
    flat = weight.reshape(outputs, channels, -1)
    pairs = np.einsum("ocu,uv,odv->ocd", flat, correlation**distance, flat).reshape(outputs, -1)
    scale = 1 / np.maximum(variance, 1e-12)
    rows = pairs * scale[:, None]
    ridge = 1e-3 * np.trace(rows.T @ rows) / rows.shape[1] * np.eye(rows.shape[1])
    s = np.linalg.solve(rows.T @ rows + ridge, rows.sum(axis=0)).reshape(channels, channels)
    values, vectors = np.linalg.eigh((s + s.T) / 2)
    s = (vectors * np.maximum(values, 1e-3 * max(values.max(), 0))) @ vectors.T
    return s, float(((rows @ s.reshape(-1) - 1) ** 2).sum())


def _first_layer(value: Value) -> tuple[Node, Node] | None:
    users = value.users
    if len(users) != 1 or users[0].op != "Conv" or users[0].get_int("group", 1) != 1 or users[0].input(0) is not value:
        return None
    after = users[0].output.users
    if len(after) != 1 or after[0].op != "BatchNormalization":
        return None
    return users[0], after[0]


def _constant(value: Value | None) -> npt.NDArray[np.float64] | None:
    data = None if value is None else value.numpy()
    return None if data is None else data.astype(np.float64)
