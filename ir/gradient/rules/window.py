"""Where the windows of convolutions and pools lie, and the two moves that every gradient of them is made of."""

from __future__ import annotations

from dataclasses import dataclass

from ...attributes import AttributeValue
from ...graph import Node, Value
from ..builder import Builder, CannotDifferentiate

FAR = 1 << 62
"""A bound past every end."""


@dataclass(frozen=True, slots=True)
class GradientWindow:
    """Element i of a window at place p lies at `strides` p + `dilations` i - `begin`, along each spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def reach(self) -> tuple[int, ...]:
        """How far the last element of a window is from its first."""
        return tuple((k - 1) * d for k, d in zip(self.kernel, self.dilations))

    @property
    def plain(self) -> bool:
        """One element, every place, no borders: a product of matrices."""
        return {*self.kernel, *self.strides} == {1} and not any(self.begin) and not any(self.end)


def window(node: Node, build: Builder, kernel: tuple[int, ...], x: Value, y: Value) -> GradientWindow:
    """The windows by which `node` reads `x` to make `y`. A pool that rounds up has an `end` as far as they reach."""
    rank = len(kernel)
    strides = node.get_ints("strides", (1,) * rank)
    dilations = node.get_ints("dilations", (1,) * rank)
    pads = node.get_ints("pads", (0,) * 2 * rank)
    auto = node.get_string("auto_pad", "NOTSET")
    begin, end = list(pads[:rank]), list(pads[rank:])
    for axis in range(rank):
        size, count = build.shape(x)[axis + 2], build.shape(y)[axis + 2]
        reach = (kernel[axis] - 1) * dilations[axis]
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            if isinstance(size, int):
                total = max((-(-size // strides[axis]) - 1) * strides[axis] + reach + 1 - size, 0)
            elif strides[axis] == 1:
                total = reach
            else:
                raise CannotDifferentiate("has borders that depend on an open size")
            begin[axis] = total // 2 if auto == "SAME_UPPER" else total - total // 2
            end[axis] = total - begin[axis]
        elif auto == "VALID":
            begin[axis] = end[axis] = 0
        elif node.get_int("ceil_mode"):
            if isinstance(size, int) and isinstance(count, int):
                end[axis] = max((count - 1) * strides[axis] + reach + 1 - size - begin[axis], end[axis])
            elif strides[axis] > 1:
                raise CannotDifferentiate("rounds up an open size")
    return GradientWindow(tuple(kernel), strides, dilations, tuple(begin), tuple(end))


def shifted(build: Builder, padded: Value, place: tuple[int, ...], view: GradientWindow, lead: int = 2) -> Value:
    """What element `place` of each window reads of a tensor whose borders are added; `lead` axes stand before."""
    starts, ends = [], []
    for i, dilation, reach in zip(place, view.dilations, view.reach):
        starts.append(i * dilation)
        # Counted from the end, the cut is right for open sizes, too, and for places that no stride reaches.
        ends.append(i * dilation - reach if i * dilation < reach else FAR)
    if not any(starts) and all(end == FAR for end in ends) and set(view.strides) == {1}:
        return padded
    return build.slice(padded, list(range(lead, lead + view.rank)), starts, ends, view.strides)


def spread(build: Builder, g: Value, weight: Value, view: GradientWindow, group: int, x: Value, y: Value) -> Value:
    """The transposed convolution of `g`, a gradient of the shape of `y`, in the shape of `x` along spatial axes."""
    common: dict[str, AttributeValue] = {
        "strides": view.strides,
        "dilations": view.dilations,
        "group": group,
        "kernel_shape": view.kernel,
    }
    sizes, counts = build.shape(x)[2:], build.shape(y)[2:]
    end, more = [], []
    for axis in range(view.rank):
        size, count = sizes[axis], counts[axis]
        if isinstance(size, int) and isinstance(count, int):
            past = (count - 1) * view.strides[axis] + view.reach[axis] + 1 - view.begin[axis] - size
        elif view.strides[axis] == 1:
            past = view.end[axis]
        else:
            break
        end.append(max(past, 0))
        more.append(max(-past, 0))
    else:
        return build("ConvTranspose", g, weight, pads=[*view.begin, *end], output_padding=more, **common)
    # Everything that the windows reach, and what a stride leaves over; then the part that is there.
    whole = build("ConvTranspose", g, weight, output_padding=[s - 1 for s in view.strides], **common)
    starts = build.ints(view.begin)
    spatial = build.slice(build.shape_of(x), [0], [2], [FAR])
    axes = build.ints(list(range(2, 2 + view.rank)))
    return build("Slice", whole, starts, build("Add", starts, spatial), axes)
