"""NASNet-A: cells of separable convolutions and pools, found by reinforcement learning, stacked.

Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", 2018 (arXiv:1707.07012), Figure 4 and
appendix A.1. Each cell reads the outputs of the two before it. The sizes are those of the authors' checkpoints:
`mobile` is NASNet-A (4 @ 1056), `large` NASNet-A (6 @ 4032).
"""

from __future__ import annotations

from ..errors import SpecError
from ..ir.graph import Graph
from ..ir.node import Value
from .builder import NetworkBuilder, he, sizes


def nasnet(
    repeats: int,
    filters: int,
    stem: int,
    skip_reduction: bool,
    resolution: int,
    classes: int = 1000,
    *,
    channels: int = 3,
    batch_norm: bool = True,
    pads: str = "tf",
    epsilon: float = 1e-3,
    seed: int = 0,
) -> Graph:
    """NASNet-A on (N, channels, resolution, resolution), random weights.

    `repeats` are the normal cells of each of the three stages, `filters` the channels of the last feature map, a
    multiple of 96, and `stem` those of the first convolution. With `skip_reduction` the cell behind a reduction reads,
    as the earlier of its two inputs, the one before the reduction's own. Raises `SpecError` for other `filters`.
    """
    if filters % 96:
        raise SpecError(f"filters={filters} is no multiple of 96; take 1056 or 4032")
    build = NetworkBuilder("nasnet_a", he(seed), batch_norm=batch_norm, epsilon=epsilon, pads=pads)
    image = build.input("input", channels, resolution, resolution)
    x = build.conv(image, "stem", stem, 3, stride=2, pads=[0] * 4, gain=1.0)
    width = filters // 24
    previous, x = x, _reduction(build, x, x, width // 4, "stem1")
    previous, x = x, _reduction(build, x, previous, width // 2, "stem2")
    for stage in range(3):
        if stage:
            reduced = _reduction(build, x, previous, width * 2**stage, f"reduce{stage}")
            previous, x = previous if skip_reduction else x, reduced
        for index in range(repeats):
            cell = _normal(build, x, previous, width * 2**stage, f"stage{stage + 1}.cell{index + 1}")
            previous, x = x, cell
    return build.finish(build.classifier(build.activate(x, "head", "relu"), classes), "logits")


def _normal(build: NetworkBuilder, x: Value, previous: Value, filters: int, name: str) -> Value:
    p, h = _fitted(build, previous, x, filters, name), _squeezed(build, x, filters, f"{name}.squeeze")
    pads = build.pads(h, 3, 1)
    average = build.pool(p, f"{name}.average", "AveragePool", 3, 1, pads)
    sums = (
        (_separable(build, h, filters, 5, 1, f"{name}.left1"), _separable(build, p, filters, 3, 1, f"{name}.right1")),
        (_separable(build, p, filters, 5, 1, f"{name}.left2"), _separable(build, p, filters, 3, 1, f"{name}.right2")),
        (build.pool(h, f"{name}.left3", "AveragePool", 3, 1, pads), p),
        (average, average),
        (_separable(build, h, filters, 3, 1, f"{name}.left5"), h),
    )
    blocks = [build.add(a, b, f"{name}.add{index}") for index, (a, b) in enumerate(sums, start=1)]
    return build.concat([p, *blocks], f"{name}.concat")


def _reduction(build: NetworkBuilder, x: Value, previous: Value, filters: int, name: str) -> Value:
    p, h = _fitted(build, previous, x, filters, name), _squeezed(build, x, filters, f"{name}.squeeze")
    pads = build.pads(h, 3, 2)
    largest = build.pool(h, f"{name}.largest", "MaxPool", 3, 2, pads)
    average = build.pool(h, f"{name}.average", "AveragePool", 3, 2, pads)
    first = build.add(
        _separable(build, h, filters, 5, 2, f"{name}.left1"),
        _separable(build, p, filters, 7, 2, f"{name}.right1"),
        f"{name}.add1",
    )
    second = build.add(largest, _separable(build, p, filters, 7, 2, f"{name}.right2"), f"{name}.add2")
    third = build.add(average, _separable(build, p, filters, 5, 2, f"{name}.right3"), f"{name}.add3")
    mean = build.pool(first, f"{name}.left4", "AveragePool", 3, 1, build.pads(first, 3, 1))
    fourth = build.add(second, mean, f"{name}.add4")
    fifth = build.add(_separable(build, first, filters, 3, 1, f"{name}.left5"), largest, f"{name}.add5")
    return build.concat([second, third, fourth, fifth], f"{name}.concat")


def _squeezed(build: NetworkBuilder, x: Value, filters: int, name: str) -> Value:
    return build.conv(build.activate(x, name, "relu"), name, filters)


def _fitted(build: NetworkBuilder, previous: Value, x: Value, filters: int, name: str) -> Value:
    """The earlier input in the size of the later one and with `filters` channels.

    Where a reduction stands between the two, two halves of the channels come from every second pixel, the other half
    shifted by one (the authors' factorised reduction), so that no pixel is lost.
    """
    name = f"{name}.fit"
    if previous is x:
        return previous
    if sizes(previous)[1:] == sizes(x)[1:]:
        return previous if sizes(previous)[0] == filters else _squeezed(build, previous, filters, name)
    y = build.activate(previous, name, "relu")
    paths = ((y, f"{name}.path1"), (_shifted(build, y, f"{name}.shift"), f"{name}.path2"))
    halves = [build.conv(_every_second(build, path, f"{prefix}.pick"), prefix, filters // 2) for path, prefix in paths]
    return build.concat(halves, f"{name}.concat")


def _every_second(build: NetworkBuilder, x: Value, name: str) -> Value:
    return build.pool(x, name, "AveragePool", 1, 2, [0] * 4)


def _shifted(build: NetworkBuilder, x: Value, name: str) -> Value:
    """The map one pixel up and to the left, zeros behind its end."""
    channels, height, width = sizes(x)
    padded = build.node(
        "Pad",
        f"{name}.pad",
        [x, build.integers(f"{name}.pads", [0, 0, 0, 0, 0, 0, 1, 1])],
        ("N", channels, height + 1, width + 1),
    )
    cut = [
        build.integers(f"{name}.{part}", values)
        for part, values in (("starts", [1, 1]), ("ends", [height + 1, width + 1]), ("axes", [2, 3]))
    ]
    return build.node("Slice", f"{name}.slice", [padded, *cut], ("N", channels, height, width))


def _separable(build: NetworkBuilder, x: Value, filters: int, kernel: int, stride: int, name: str) -> Value:
    """Twice ReLU, a convolution a channel, a 1x1 convolution and normalisation; the first time with the stride."""
    for part, step in (("first", stride), ("second", 1)):
        y = build.activate(x, f"{name}.{part}", "relu")
        y = build.bare_depthwise(y, f"{name}.{part}.depthwise", kernel, stride=step)
        x = build.conv(y, f"{name}.{part}.pointwise", filters, gain=1.0)
    return x
