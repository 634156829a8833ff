"""How far the values inside the result are from the original's, layer by layer, and how weights and activations lie.

What a node of the result puts out is compared with what the last of the nodes put out that it was made of, where name
and shape allow it: 10 log10(sum t^2 / sum (t - a s - b)^2) over a few held-out samples. What the layers before bring in
is part of it, so it tells where answers begin to drift, not what one layer alone did. Values are fetched a few at a
time, so that memory stays bounded.

Equalisation (passes.quant) gives every channel a scale of its own, which the layers behind it take back; folded
normalisations and means that biases take up shift channels besides. So values inside are compared up to a factor and a
shift a channel, those of the least squares. What a graph puts out is compared as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...ir.graph import Graph
from ...ir.node import Node, Value
from ...runtime.columns import Array
from ...runtime.samples import Feeds, Samples
from ...runtime.session import Session
from ...runtime.sums import decibel
from .rows import PageRow, PageRows, title

SAMPLES = 4
"""Held-out samples that are looked at."""
LAYERS = 6
"""Layers of which histograms are made."""

_CHUNK = 64 << 20
"""Bytes of activations that are fetched at once, of one sample."""
_BINS = 48
_KEPT = 1 << 20
"""Elements of one layer's values that a histogram is made of, at most."""

_FLAT = 1e-12
"""The share of its squares that is the variance of a channel which says nothing."""

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BinShares:
    """Shares of the elements in bins with common `edges`; either side may be missing."""

    edges: Counts
    before: Counts | None
    after: Counts | None


@dataclass(slots=True)
class LayerDrift:
    """The histograms of one layer."""

    row: PageRow
    weights: BinShares | None = None
    activations: BinShares | None = None


@dataclass(slots=True)
class _Pair:
    """One value in both graphs, and sums over it: t^2 and (t - s)^2 of all elements, and a channel `sums` of t^2, t s,
    s^2, t, s and 1."""

    row: PageRow
    before: Value
    after: Value
    size: int
    signal: float = 0.0
    noise: float = 0.0
    sums: Counts | None = None
    ragged: bool = False
    comparable: bool = True

    def add(self, t: Counts, s: Counts) -> None:
        """Take a sample into the sums."""
        self.signal += float(np.vdot(t, t))
        self.noise += float(np.vdot(t - s, t - s))
        if not self.after.is_output:
            before, after = self._channels(t), self._channels(s)
            ones = np.ones_like(before)
            pairs = ((before, before), (before, after), (after, after), (before, ones), (after, ones), (ones, ones))
            products = np.stack([np.einsum("ij,ij->i", a, b) for a, b in pairs])
            self.ragged |= self.sums is not None and self.sums.shape != products.shape
            self.sums = None if self.ragged else products if self.sums is None else self.sums + products

    @property
    def fit(self) -> tuple[Counts, Counts, Counts] | None:
        """The factor and the shift that bring each channel of the result nearest to the original's, and what is left of
        the squares."""
        if self.sums is None:
            return None
        tt, ts, ss, t, s, count = self.sums
        centred = ss - s * s / count
        factor = np.divide(ts - t * s / count, centred, out=np.ones_like(ts), where=centred > _FLAT * ss)
        shift = (t - factor * s) / count
        left = tt - t * t / count - 2 * factor * (ts - t * s / count) + factor**2 * centred
        return factor, shift, np.maximum(left, 0)

    @property
    def snr_db(self) -> float:
        noise = self.noise
        if (fit := self.fit) is not None:
            noise = min(noise, float(fit[2].sum()))
        return decibel(self.signal, noise)

    def scaled(self, s: Array) -> Array:
        """The result's value where the original's lies."""
        if (fit := self.fit) is None:
            return s
        return np.asarray(self._channels(s.astype(np.float64)) * fit[0][:, None] + fit[1][:, None])

    def _channels(self, array: Counts) -> Counts:
        """A row a channel: the second axis of pictures and of what convolutions make, the last one elsewhere."""
        if array.ndim < 2:
            return array.reshape(1, -1)
        node = self.after.producer
        second = array.ndim > 3 or (node is not None and "Conv" in node.op)
        array = np.moveaxis(array, 1 if second else -1, 0)
        return array.reshape(array.shape[0], -1)


def drift(
    original: Graph, result: Graph, rows: PageRows, samples: Samples, sizes: Mapping[Node, int], threads: int
) -> list[LayerDrift]:
    """Enter `snr_db` into the rows; returns histograms of the layers with weights where it is lowest.

    `sizes` are the bytes that each node of the original puts out for one sample. Raises `TargetError` where a graph
    does not run.
    """
    few = samples.take(SAMPLES)
    pairs = _pairs(original, result, rows, sizes)
    for chunk in _chunks(pairs):
        for pair, one, other in _runs(original, result, chunk, few, threads):
            if one.shape != other.shape or one.dtype.kind != "f" or other.dtype.kind != "f":
                pair.comparable = False
                continue
            t, s = np.nan_to_num(one.astype(np.float64)), np.nan_to_num(other.astype(np.float64))
            pair.add(t, s)
    for pair in pairs:
        if pair.comparable:
            snr = pair.snr_db
            pair.row.snr_db = snr if pair.row.snr_db is None else min(pair.row.snr_db, snr)
    worst = sorted(
        (row for row in rows.all if row.after.macs and row.after.bytes and row.changed),
        key=lambda row: (row.snr_db is None, row.snr_db or 0.0, -row.after.bytes),
    )[:LAYERS]
    return _spreads(original, result, worst, pairs, few, threads)


def _pairs(original: Graph, result: Graph, rows: PageRows, sizes: Mapping[Node, int]) -> list[_Pair]:
    named: dict[str, Node] = {}
    order = {node: at for at, node in enumerate(original)}
    for node in original:
        for name in (title(node), *node.origin.nodes):
            named.setdefault(name, node)
    pairs = []
    for node in result:
        made_of = [named[name] for name in (node.origin.nodes or (title(node),)) if name in named]
        names = {value.name for one in made_of for value in one.outputs}
        if not made_of or not node.outputs or node.output.name not in names:
            continue
        # A normalisation folded into a convolution leaves the convolution's name on what the normalisation put out.
        last = max(made_of, key=order.__getitem__)
        if last.outputs and _is_float(node.output) and _is_float(last.output):
            pairs.append(_Pair(rows.of[node], last.output, node.output, sizes.get(last, 0)))
    return pairs


def _chunks(pairs: Sequence[_Pair]) -> list[list[_Pair]]:
    chunks: list[list[_Pair]] = []
    room = 0
    for pair in pairs:
        room -= pair.size
        if not chunks or room < 0:
            chunks.append([])
            room = _CHUNK - pair.size
        chunks[-1].append(pair)
    return chunks


def _runs(
    original: Graph, result: Graph, pairs: Sequence[_Pair], few: Samples, threads: int
) -> Iterator[tuple[_Pair, Array, Array]]:
    """Every pair with its two values, for every sample in turn."""
    first = Session(original, outputs=[pair.before for pair in pairs], threads=threads)
    second = Session(result, outputs=[pair.after for pair in pairs], threads=threads)
    for feeds in few.batches(1):
        yield from zip(pairs, first.run(feeds), second.run(feeds), strict=True)


def _spreads(
    original: Graph, result: Graph, worst: Sequence[PageRow], pairs: Sequence[_Pair], few: Samples, threads: int
) -> list[LayerDrift]:
    by_row: dict[int, _Pair] = {}
    for pair in pairs:
        by_row.setdefault(pair.row.index, pair)
    chosen = [by_row[row.index] for row in worst if row.index in by_row]
    values: dict[int, list[tuple[Array, Array]]] = {}
    for pair in chosen:
        for _, t, s in _runs(original, result, [pair], few, threads):
            values.setdefault(pair.row.index, []).append((_some(t), _some(pair.scaled(s))))
    feeds = next(few.batches(1))
    spreads = []
    for row in worst:
        old, new = _weights(original, row.before.work, feeds), _weights(result, row.after.work, feeds)
        weights = _histogram(_together(old), _together(_at_scale(old, new, row.after.work)))
        spread = LayerDrift(row, weights)
        if row.index in values:
            one, other = zip(*values[row.index], strict=True)
            spread.activations = _histogram(np.concatenate(one), np.concatenate(other))
        if spread.weights is not None or spread.activations is not None:
            spreads.append(spread)
    return spreads


def _weights(graph: Graph, nodes: Sequence[Node], feeds: Feeds) -> list[Array]:
    """The weights that `nodes` multiply with: of each node the largest input that hangs from constants alone, computed
    by the runtime where it is stored in another form."""
    constants = [[v for v in node.inputs if v is not None and _is_float(v) and _constant(v)] for node in nodes]
    largest = [max(values, key=_elements) for values in constants if values]
    return Session(graph, outputs=largest, threads=1).run(feeds) if largest else []


def _at_scale(before: Sequence[Array], after: Sequence[Array], nodes: Sequence[Node]) -> Sequence[Array]:
    """The weights `after` with each output channel at the scale that it had `before`: a normalisation that was folded
    into them, or an equalisation, gives channels scales of their own."""
    if len(before) != 1 or len(after) != 1 or before[0].shape != after[0].shape or before[0].ndim < 2:
        return after
    node = nodes[0]
    axis = 0 if "Conv" in node.op or node.get_int("transB") else before[0].ndim - 1
    one, other = (np.moveaxis(a[0].astype(np.float64), axis, 0).reshape(a[0].shape[axis], -1) for a in (before, after))
    norms = [np.sqrt(np.einsum("ij,ij->i", a, a)) for a in (one, other)]
    factor = np.divide(norms[0], norms[1], out=np.ones_like(norms[0]), where=norms[1] > 0)
    return [np.asarray(other * factor[:, None])]


def _together(arrays: Sequence[Array]) -> Array | None:
    """All in one row."""
    return np.concatenate([_some(array) for array in arrays]) if arrays else None


def _constant(value: Value, depth: int = 6) -> bool:
    """Whether a value is stored, or computed from what is stored alone."""
    if value.constant is not None:
        return True
    node = value.producer
    if node is None or depth == 0:
        return False
    return all(one is None or _constant(one, depth - 1) for one in node.inputs)


def _elements(value: Value) -> int:
    shape = value.constant.shape if value.constant is not None else value.static_shape
    return int(np.prod(shape)) if shape is not None else 0


def _histogram(before: Array | None, after: Array | None) -> BinShares | None:
    both = [array for array in (before, after) if array is not None and array.size]
    if not both:
        return None
    low, high = min(float(a.min()) for a in both), max(float(a.max()) for a in both)
    edges = np.linspace(low, high if high > low else low + 1e-6, _BINS + 1)
    one, other = (None if a is None or not a.size else np.histogram(a, edges)[0] / a.size for a in (before, after))
    return BinShares(edges, one, other)


def _some(array: Array) -> Array:
    """The finite elements in one row, evenly thinned where there are very many."""
    flat = array.reshape(-1)
    flat = np.asarray(flat[:: -(-flat.size // _KEPT) or 1], np.float32)
    return np.asarray(flat[np.isfinite(flat)])


def _is_float(value: Value) -> bool:
    return value.dtype is None or value.dtype.is_float
