"""A network of the zoo with the weights of a file: found by name, laid out as the network wants them, none over."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ModelError, SpecError
from ...ir.graph import Graph
from ...ir.tensor import ArrayTensor
from ..builder import FloatArray
from . import files
from .names import NamingScheme, nearest_scheme, parameters

Array = npt.NDArray[Any]

_COUNTERS = ("num_batches_tracked", "ExponentialMovingAverage", "Momentum", "RMSProp", "global_step")
"""Parts of the names of what training keeps beside the parameters."""
_NORMALIZATION = re.compile(r"normalization(_\d+)?/(mean|variance)$")
"""What Keras's EfficientNet has before the network: the mean and variance of the images it was trained on."""


def trained(build: Callable[..., Graph], options: Mapping[str, Any], spelled: frozenset[str], path: str) -> Graph:
    """The network that `build` makes of `options`, with the weights in the file at `path`.

    Options that are not `spelled` follow the file: the number of classes, and the pads and epsilon of the framework
    that named its parameters. Raises `ModelError` where the file does not hold this network's parameters, all of
    them, and `SpecError` where its names do not tell how the network pads.
    """
    arrays = files.read(path)
    chosen = dict(options)
    graph = build(**chosen)
    scheme = nearest_scheme(arrays, graph)
    if scheme is None:
        raise ModelError(f"{path} holds none of the parameters of {graph.name}; it begins with {_some(arrays)}")
    _follow(chosen, spelled, scheme, graph.name, path)
    if "classes" not in spelled:
        source = (parameters(graph, scheme) or {})["classifier.bias"][0]
        if source in arrays and arrays[source].ndim == 1:
            chosen["classes"] = len(arrays[source])
    graph = build(**chosen)
    _fill(graph, scheme, arrays, path)
    return graph


def _follow(options: dict[str, Any], spelled: frozenset[str], scheme: NamingScheme, family: str, path: str) -> None:
    """Set the pads and the epsilon that networks of this scheme are trained with."""
    pads, epsilon = scheme.pads, scheme.epsilon
    if not pads:
        if "pads" not in spelled:
            raise SpecError(
                f"{path} names its parameters as timm does, whose networks pad in either way; say pads=tf for one "
                "that came from TensorFlow (tf_...), else pads=torch"
            )
        pads = options["pads"]
        epsilon = 1e-3 if pads == "tf" else 1e-5
    if scheme.name == "torchvision":
        # torchvision's V3 and its EfficientNet from B5 on keep the authors' epsilon.
        wide = family == "efficientnet" and options["width"] >= 1.6
        epsilon = 1e-3 if wide or family.startswith("mobilenet_v3") else epsilon
    options.update({name: value for name, value in (("pads", pads), ("epsilon", epsilon)) if name not in spelled})


def _fill(graph: Graph, scheme: NamingScheme, arrays: Mapping[str, Array], path: str) -> None:
    wanted = parameters(graph, scheme) or {}
    constants = {value.name: value for value in graph.constants}
    missing = [source for source, _ in wanted.values() if source not in arrays]
    if missing:
        raise ModelError(
            f"{path} (named as {scheme.name} does) lacks {len(missing)} of the {len(wanted)} parameters of "
            f"{graph.name}: {_some(missing)}"
        )
    used = {source for source, _ in wanted.values()}
    over = [
        name
        for name in arrays
        if name not in used and not any(part in name for part in _COUNTERS) and not _NORMALIZATION.match(name)
    ]
    if over:
        raise ModelError(f"{path} holds {len(over)} parameters that {graph.name} does not have: {_some(over)}")
    for name, (source, depthwise) in wanted.items():
        value = constants[name]
        array = _laid_out(np.asarray(arrays[source]), scheme, depthwise, len(value.static_shape or ()))
        if array.shape != value.static_shape:
            raise ModelError(
                f"{path}: {source} has shape {list(array.shape)}, {graph.name} needs {list(value.static_shape or ())}; "
                "does the network have other options?"
            )
        value.constant = ArrayTensor(array.astype(np.float32))


def _laid_out(array: Array, scheme: NamingScheme, depthwise: bool, rank: int) -> FloatArray | Array:
    """A kernel as (out, in / groups, height, width), a dense weight as (out, in)."""
    if scheme.channels_last and array.ndim == 4:
        array = array.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    elif scheme.channels_last and array.ndim == 2:
        array = array.T
    # A dense layer behind the pooling is a 1x1 convolution in some of the frameworks.
    if array.ndim == 4 and rank == 2 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    elif array.ndim == 2 and rank == 4:
        array = array[:, :, None, None]
    return np.ascontiguousarray(array)


def _some(names: Any) -> str:
    listed = list(names)
    return ", ".join(f"'{name}'" for name in listed[:3]) + (" …" if len(listed) > 3 else "")
