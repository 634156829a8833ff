"""The table of the zoo: every network by name.

A trained network is a file that ships, with samples; an architecture is built when asked for, with random weights, from
a specification like `mobilenet_v1:alpha=0.5:resolution=128`, whose options are the builder's own arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import DataError, SpecError, nearest
from ..ir.graph import Graph
from . import digits
from .efficientnet import SCALES, efficientnet
from .mnasnet import mnasnet_a1
from .mobilenet import mobilenet_v1, mobilenet_v2
from .mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from .nasnet import nasnet
from .resnet import resnet_cifar

Option: TypeAlias = int | float | bool | str


@dataclass(frozen=True, slots=True)
class Network:
    """One network. `build` makes an architecture and is `None` for a trained one, which is read from its file."""

    name: str
    description: str
    source: str
    build: Callable[..., Graph] | None = None
    fixed: frozenset[str] = frozenset()
    """Arguments of the builder that make the network what it is, and are no options."""

    @property
    def kind(self) -> Literal["trained", "architecture"]:
        return "trained" if self.build is None else "architecture"

    @property
    def options(self) -> dict[str, Option]:
        """What may follow the name in a specification, with its default."""
        if self.build is None:
            return {}
        parameters = inspect.signature(self.build).parameters
        return {name: parameter.default for name, parameter in parameters.items() if name not in self.fixed}


_ENTRIES = (
    Network("digits_dscnn", "depthwise-separable CNN on 16x16 digits, 99.8 % right", "trained here on the UCI digits"),
    Network("digits_resnet", "residual CNN on 16x16 digits, 99.5 % right", "trained here on the UCI digits"),
    Network(
        "digits_transformer", "transformer encoder on 16x16 digits, 99.0 % right", "trained here on the UCI digits"
    ),
    Network(
        "digits_mobilenet_v3",
        "gated CNN with hard swish on 16x16 digits, 99.7 % right",
        "trained here on the UCI digits",
    ),
    Network(
        "digits_efficientnet", "gated CNN with SiLU on 16x16 digits, 99.8 % right", "trained here on the UCI digits"
    ),
    Network(
        "mobilenet_v1", "depthwise-separable CNN for ImageNet", "Howard et al., 2017, arXiv:1704.04861", mobilenet_v1
    ),
    Network("mobilenet_v2", "inverted residuals for ImageNet", "Sandler et al., 2018, arXiv:1801.04381", mobilenet_v2),
    Network(
        "mobilenet_v3_large",
        "gated inverted residuals, searched for ImageNet",
        "Howard et al., 2019, arXiv:1905.02244",
        mobilenet_v3_large,
    ),
    Network(
        "mobilenet_v3_small",
        "its small form, for the least latency",
        "Howard et al., 2019, arXiv:1905.02244",
        mobilenet_v3_small,
    ),
    *(
        Network(
            f"efficientnet_{variant}",
            "compound-scaled CNN for phones" if variant.startswith("lite") else "compound-scaled CNN for ImageNet",
            "Tan and Le, 2019, arXiv:1905.11946",
            partial(efficientnet, width=width, depth=depth, resolution=resolution, lite=variant.startswith("lite")),
            fixed=frozenset({"lite"}),
        )
        for variant, (width, depth, resolution) in SCALES.items()
    ),
    Network("mnasnet_a1", "searched by latency on a phone", "Tan et al., 2019, arXiv:1807.11626", mnasnet_a1),
    Network(
        "nasnet_mobile",
        "cells found by reinforcement learning, 4 @ 1056",
        "Zoph et al., 2018, arXiv:1707.07012",
        partial(nasnet, repeats=4, filters=1056, stem=32, skip_reduction=False, resolution=224),
    ),
    Network(
        "nasnet_large",
        "the same cells, 6 @ 4032",
        "Zoph et al., 2018, arXiv:1707.07012",
        partial(nasnet, repeats=6, filters=4032, stem=96, skip_reduction=True, resolution=331),
    ),
    Network("resnet_cifar", "basic-block ResNet for 32x32 images", "He et al., 2015, arXiv:1512.03385", resnet_cifar),
)


def entries() -> tuple[Network, ...]:
    """All networks, trained ones first."""
    return _ENTRIES


def find(name: str) -> Network:
    """The entry of a name, with or without options behind it. Raises `SpecError` for an unknown one."""
    word = name.partition(":")[0]
    for entry in _ENTRIES:
        if entry.name == word:
            return entry
    message = f"the zoo has no network '{word}'.{nearest(word, (entry.name for entry in _ENTRIES))}"
    raise SpecError(message, text=name, position=0)


def load(spec: str) -> Graph:
    """The network that a specification `name:option=value:…` names.

    Of an architecture the last option may be `weights=FILE`: trained weights, in a form that `weights.files` reads.
    Raises `SpecError` for a specification that does not parse, `ModelError` for weights that are not this network's.
    """
    entry = find(spec)
    spec, _, weights = spec.partition(":weights=")
    options = _parse_options(entry, spec)
    if entry.build is not None and weights:
        from .weights.load import trained

        return trained(entry.build, {**entry.options, **options}, frozenset(options), weights)
    if weights:
        raise SpecError(f"{entry.name} has weights of its own; weights= is for architectures", text=spec, position=0)
    if entry.build is not None:
        return entry.build(**options)
    from ..ir.onnx.reader import load as read

    with as_file(digits.DATA / f"{entry.name}.onnx") as path:
        return read(path)


def samples(name: str, split: str) -> dict[str, npt.NDArray[np.float32]]:
    """Input name to array (n, 1, 16, 16) of a trained network, for `train` (897), `calib` (300) or `test` (600).

    Raises `DataError` for an architecture, which has no samples, and for another split.
    """
    return {"input": digits.images(_split(name, split))}


def labels(name: str, split: str) -> npt.NDArray[np.int64]:
    """The right class for each sample of `samples(name, split)`, (n,)."""
    return digits.labels(_split(name, split))


def _split(name: str, split: str) -> digits.Split:
    entry = find(name)
    if entry.build is not None:
        raise DataError(
            f"{entry.name} is an architecture with random weights and has no samples; give some with --data"
        )
    for one in digits.SPLITS:
        if split == one:
            return one
    raise DataError(f"{entry.name} has no split '{split}'.{nearest(split, digits.SPLITS)}")


def _parse_options(entry: Network, spec: str) -> dict[str, Option]:
    declared = entry.options
    parsed: dict[str, Option] = {}
    position = len(entry.name) + 1
    for part in spec.split(":")[1:]:
        key, equals, text = part.partition("=")
        if key not in declared:
            message = f"{entry.name} has no option '{key}'.{nearest(key, declared)}"
            raise SpecError(message, text=spec, position=position)
        if key in parsed:
            raise SpecError(f"option '{key}' of {entry.name} stands there twice", text=spec, position=position)
        try:
            parsed[key] = _parse(text, declared[key])
        except ValueError as error:
            message = f"option '{key}' of {entry.name} takes a value like {declared[key]}, not '{text}'"
            raise SpecError(message, text=spec, position=position + len(key) + len(equals)) from error
        position += len(part) + 1
    return parsed


def _parse(text: str, default: Option) -> Option:
    """Zero is a number only of what is zero by default: no network has no layers, or none of width."""
    kind = type(default)
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if kind is not str and (not 0 <= float(text) < 2**31 or (float(text) == 0 and default != 0)):
        raise ValueError(text)
    return kind(text)
