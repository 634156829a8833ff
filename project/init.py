"""A first `optc.toml` for a model: what most need, and the rest as comments to take or leave."""

from __future__ import annotations

import json
import os
import textwrap

from ..compiler.model import stem_of
from ..compiler.option import declared
from ..compiler.options import Options
from ..errors import OutputError
from ..ir.cost import cost
from ..ir.graph import Graph
from ..ir.text.literal import type_text
from ..storage.atomic import Replacement
from ..storage.plain_file import read_text
from .config import load, parse

_TEXT = """\
# What `optc build` makes of this model. Every key but `path` may be left out; keys before the first [[model]] hold for
# all models of the file. Options on the command line win over those here.

[[model]]
path = {path}
passes = "prune,svd,quant"        # see: optc passes
targets = ["onnx"]                # see: optc targets
{data}
# What the result must keep; `optc build` exits with 3 where it does not.
# budget = "size=50%,agreement=98%"

# output = "build"                # a folder, or a file name with {{name}} and {{target}}
# name = {name}
{options}{images}
# What single layers want. Layers are found by a pattern of their names (match), by their operator (op), or by both.
# The layers that store most are:
{layers}
# [[model.override]]
# match = {match}
# keep = true                     # leave it as it is
#
# [[model.override]]
# op = "Conv"
# passes = {{ svd = {{ ratio = 0.5 }}, quant = "keep" }}
"""

_IMAGES = """
# The samples are images: how they become tensors.
# mean = [123.7, 116.3, 103.5]    # subtracted from pixels of 0..255
# std = [58.4, 57.1, 57.4]        # divided by afterwards
# layout = "auto"                 # or "NCHW", "NHWC"
# resize = "{size}"
"""


def text(model: str, graph: Graph, folder: str) -> str:
    """The configuration for `graph`, read from `model`, as a file in `folder` would hold it."""
    path = model if model.startswith("zoo:") else os.path.relpath(model, folder)
    stem = stem_of(path)
    inputs = [f"{value.name}: {type_text(value.type)}" for value in graph.inputs if value.default is None]
    data = '# data = "calib.npz"              # samples to calibrate on: an .npz, or a folder of .npy or of images\n'
    data += "".join(f"#                                 input {one}\n" for one in inputs)
    nodes = sorted(cost(graph).nodes.items(), key=lambda item: -item[1].bytes)
    heavy = [(node.label, work.bytes) for node, work in nodes[:3] if work.bytes]
    layers = "".join(f"#   {json.dumps(name)}, {size:,} bytes\n" for name, size in heavy)
    match = json.dumps(heavy[0][0] if heavy else "*")
    return _TEXT.format(
        path=json.dumps(path),
        name=json.dumps(stem),
        data=data,
        options=_options(),
        images=_images(graph),
        layers=layers,
        match=match,
    )


def _options() -> str:
    """The options that have an example, each under what it does."""
    lines: list[str] = []
    for one in declared(Options).values():
        if one.example:
            lines += textwrap.wrap(one.help, 118, initial_indent="# ", subsequent_indent="# ")
            lines.append(f"# {one.flag} = {one.example}")
    return "".join(f"{line}\n" for line in lines)


def _images(graph: Graph) -> str:
    """The part about images, where the model's one input looks like pictures."""
    shapes = [value.shape for value in graph.inputs if value.default is None]
    if len(shapes) != 1 or shapes[0] is None or len(shapes[0]) != 4:
        return ""
    shape = shapes[0]
    sizes = shape[2:] if shape[1] in (1, 3) else shape[1:3]
    return _IMAGES.format(size="x".join(str(size) if isinstance(size, int) else "224" for size in sizes))


def write(path: str, content: str, model: str) -> bool:
    """Write the file, or append what is new of `model` where there is one; whether there was.

    Raises `OutputError` where the file builds the model already, and `SpecError` where it, or what it would become,
    does not load.
    """
    appended = os.path.exists(path)
    if appended:
        if load(path).of_model(model) is not None:
            raise OutputError(f"{path} builds {model} already; edit it, or name another file with -o")
        before = read_text(path)
        entry = content.partition("\n[[model]]\n")[2]  # without the head of the file, which it has
        content = f"{before.rstrip()}\n\n[[model]]\n{entry}"
        parse(path, content)
    with Replacement(path) as files:
        files.open().write(content.encode())
    return appended
