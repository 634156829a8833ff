"""What a search chooses from: the options of every layer and group of channels, with their costs and losses.

A *site* is a place that takes one of several options: the channels of a group, whether a block goes, what stands for
it, the structure of a layer, the bits of its weights. Its first option is the one that changes nothing. A *pick* is one
option a site, and the form in which all layers compute (`FORMS`).

Costs of a pick (`Meter`) multiply within a layer, L the layer's own, k_g the share of its channels that a group keeps:

    cost = L * prod_g (1 - f_g (1 - k_g)) * structure * bits / 32

with f_g the share of the layer's axis that the group is; bytes besides have what the file says of codes (`_bytes`).
What passes repair is not in the losses, nor how they add up: `surrogate` learns that from what was judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..passes.quant.numbers.multipliers import BLOCKS
from ..passes.quant.qdq.packing import LEAST as WORDS_FROM

Array: TypeAlias = "NDArray[np.float64]"
Metric: TypeAlias = Literal["macs", "params", "size", "latency"]
Setting: TypeAlias = "str | int | float | bool"

METRICS: tuple[Metric, ...] = ("macs", "params", "size", "latency")
"""What a pick costs, each as a share of the original."""
FORMS: Mapping[str, float] = {"float": 1.0, "int8": 0.55, "dynamic": 0.8, "none": 1.0}
"""The forms that layers may compute in (`float`, or `activations` of `quant`), and how long they take beside float
ones, about, before one was measured."""
FLOAT = "float"
SHARED = ("channels", "blocks")
"""Kinds of sites that leave shares of several layers."""
WHOLE = ("blocks", "replacement")
"""Kinds of sites whose options take all of some layers."""
FACTOR = 150.0
"""Bytes, about, that a further factor of a layer takes besides its weights: nodes, scales, biases."""
TOGETHER = 4096
"""Picks whose costs are summed at once."""
CAST, MULTIPLIED, WORDS = 40.0, 110.0, 210.0
"""Bytes, about, of the nodes that decode codes of four bits, the same times multipliers, and words of three or two."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way to make a site. `changes` are the options that passes are given for it, by pass; `loss` is what the
    model's answers lose with this option alone. `macs`, `params` and `time` are shares of the layer's own; `kept` is
    the share of a group's channels; `bits` those of a weight; `forms` those of a layer that have the option (none:
    all). `measured` tells whether the loss was, or lies between two that were."""

    word: str
    family: str = ""
    changes: Mapping[str, Mapping[str, Setting]] = field(default_factory=dict)
    loss: float = 0.0
    macs: float = 1.0
    params: float = 1.0
    time: float = 1.0
    kept: float = 1.0
    bits: int = 32
    measured: bool = True
    forms: tuple[str, ...] = ()


_NONE = (Option("as all"),)
"""Of a site that has no options in a form."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place with several options. `kind` is channels, blocks, replacement, structure, bits or activations; `match` is
    the pattern that finds its layer in an override; `reach` are the layers whose cost it changes, with the shares of
    their axes that it is."""

    name: str
    kind: str
    match: str
    options: tuple[Option, ...]
    reach: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class LayerCost:
    """A layer as it is: multiply-accumulates and seconds of one sample, weights."""

    name: str
    match: str
    macs: float
    params: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Pick:
    """One option a site, by its place, and the form of all layers."""

    form: str
    at: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Space:
    """The database. `macs`, `params` and `bytes` are the whole model's; `unseen` counts the layers that time did not
    suffice for, which have no options of structure."""

    layers: tuple[LayerCost, ...]
    sites: tuple[Site, ...]
    forms: tuple[str, ...]
    macs: float
    params: float
    bytes: float
    unseen: int = 0

    def pick(self, form: str = FLOAT) -> Pick:
        """The pick that changes nothing but the form."""
        return Pick(form, (0,) * len(self.sites))

    def options(self, site: int, form: str) -> tuple[Option, ...]:
        """The options that a site has in a form: weights have no bits where layers are float; a form of its own has a
        layer among integer ones alone."""
        one = self.sites[site]
        if one.kind == "activations":
            return one.options if form == "int8" else _NONE
        if one.kind != "bits":
            return one.options
        if form == FLOAT:
            return _NONE
        return tuple(option for option in one.options if not option.forms or form in option.forms)

    def within(self, pick: Pick) -> Pick:
        """The pick with what is not there left out: options that its form does not have, and those of layers that went
        with a block. Where another block stands for one, its layers have no structure of their own, nor channels."""
        at = [min(i, len(self.options(site, pick.form)) - 1) for site, i in enumerate(pick.at)]
        gone: set[str] = set()
        replaced: set[str] = set()
        for site, i in zip(self.sites, at, strict=True):
            if i and site.kind in WHOLE:
                (gone if site.options[i].kept == 0.0 else replaced).update(site.reach)
        if gone or replaced:
            either = gone | replaced
            within = {"structure": either, "channels": either, "bits": gone, "activations": gone, "replacement": gone}
            at = [
                0 if site.reach and site.reach.keys() <= within.get(site.kind, set()) else i
                for site, i in zip(self.sites, at, strict=True)
            ]
        own = {
            site.name: str(site.options[i].changes["quant"]["activations"])
            for site, i in zip(self.sites, at, strict=True)
            if i and site.kind == "activations"
        }
        if own:  # a layer with a form of its own has the bits of that
            at = [
                min(i, len(self.options(number, own[site.name])) - 1) if site.kind == "bits" and site.name in own else i
                for number, (site, i) in enumerate(zip(self.sites, at, strict=True))
            ]
        return Pick(pick.form, tuple(at))

    def chosen(self, pick: Pick) -> list[tuple[Site, Option]]:
        """Each site with its option."""
        places = enumerate(pick.at)
        return [(self.sites[site], self.options(site, pick.form)[i]) for site, i in places]

    def losses(self, pick: Pick) -> dict[str, float]:
        """The losses of the options of a pick, summed by family."""
        sums: dict[str, float] = {}
        for _, option in self.chosen(pick):
            if option.family:
                sums[option.family] = sums.get(option.family, 0.0) + option.loss
        return sums


def unsurveyed(forms: tuple[str, ...]) -> Space:
    """The space before a survey: layers take one of `forms`, and nothing else can change."""
    return Space((), (), forms, 1.0, 1.0, 1.0)


class Meter:
    """What picks of `space` cost, as shares of the original, before anything was measured of them."""

    def __init__(self, space: Space) -> None:
        self._space = space
        numbers = {layer.name: i for i, layer in enumerate(space.layers)}
        self._own = np.array([(one.macs, one.params, one.seconds) for one in space.layers]).reshape(-1, 3).T
        macs, params, self._seconds = map(float, self._own.sum(axis=1))
        self._rest = max(space.macs - macs, 0.0), max(space.params - params, 0.0)
        self._other = max(space.bytes - 4.0 * params, 0.0)
        self._reach = [np.array([numbers[name] for name in site.reach], np.intp) for site in space.sites]
        # By option: the shares that it leaves (options, 3, layers in reach), and the factors in which a layer then is.
        self._left = [
            np.array([np.ones((3, len(site.reach))), *(_left(site, option) for option in site.options[1:])])
            for site in space.sites
        ]
        self._parts = [1.0 + (site.kind == "structure") * (np.arange(len(site.options)) > 0) for site in space.sites]

    def costs(self, pick: Pick) -> dict[Metric, float]:
        return {
            metric: float(cost[0]) for metric, cost in self.costs_of(pick.form, np.array([pick.at], np.intp)).items()
        }

    def costs_of(self, form: str, picks: NDArray[np.intp]) -> dict[Metric, Array]:
        """The costs (picks,) of many picks of a form, (picks, sites)."""
        each = [self._costs_of(form, picks[i : i + TOGETHER]) for i in range(0, len(picks), TOGETHER)]
        return {metric: np.concatenate([one[metric] for one in each]) for metric in METRICS}

    def _costs_of(self, form: str, picks: NDArray[np.intp]) -> dict[Metric, Array]:
        space, own = self._space, self._own
        shape = len(picks), own.shape[1]
        left = np.ones((3, *shape))
        bits = np.full(shape, 32.0 if form == FLOAT else 8.0)
        pace = np.full(shape, FORMS[form])
        parts = np.ones(shape)
        alone = np.full(shape, form == "none")
        for number, site in enumerate(space.sites):
            at, reach = picks[:, number], self._reach[number]
            if site.kind == "bits":
                if form != FLOAT:
                    bits[:, reach] = np.array([float(one.bits) for one in site.options])[at, None]
            elif site.kind == "activations":
                if form == "int8":
                    pace[:, reach] = np.array([one.time for one in site.options])[at, None]
                alone[:, reach] |= at[:, None] > 0
            elif at.any():
                left[:, :, reach] *= self._left[number][at].swapaxes(0, 1)
                parts[:, reach] *= self._parts[number][at, None]
        macs, params, time = left
        return {
            "macs": (macs @ own[0] + self._rest[0]) / max(space.macs, 1.0),
            "params": (params @ own[1] + self._rest[1]) / max(space.params, 1.0),
            "size": (_bytes(own[1] * params, bits, parts, alone).sum(axis=1) + self._other) / max(space.bytes, 1.0),
            "latency": (time * pace) @ own[2] / self._seconds if self._seconds else np.ones(len(picks)),
        }


def _bytes(weights: Array, bits: Array, parts: Array, alone: NDArray[np.bool_]) -> Array:
    """The bytes that each layer takes in the file with so many weights in `parts` factors alike: codes of three and two
    bits are words from some weights on, and of four before; codes of four bits have multipliers of blocks, or scales
    where weights are stored `alone`."""
    large = weights / parts >= WORDS_FROM
    words, four = (bits < 4) & large, (bits == 4) | ((bits < 4) & ~large)
    blocks = np.where(alone, 16.0, 4.0 * large) / BLOCKS[0]
    each = np.where(words, bits, np.where(four, 4.0 + blocks, bits))
    decoding = np.where(words, WORDS, np.where(four, np.where(large, MULTIPLIED, CAST), 0.0))
    present = weights > 0
    return np.asarray(weights * each / 8.0 + present * (parts * decoding + (parts - 1.0) * FACTOR))


def _left(site: Site, option: Option) -> NDArray[np.float64]:
    """The shares of work, weights and time (3, layers in reach) that an option leaves."""
    if site.kind in SHARED:
        each = [float(np.prod([1.0 - share * (1.0 - option.kept) for share in one])) for one in site.reach.values()]
        return np.array([each] * 3)
    return np.array([[option.macs], [option.params], [option.time]]).repeat(len(site.reach), axis=1)
