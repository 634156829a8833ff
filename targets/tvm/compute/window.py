"""Where the kernel of a convolution or a pooling looks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """Where a kernel of `size` (height, width) looks: `pads` are top, left, bottom, right."""

    image: tuple[int, int]
    size: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of what it gives."""
        top, left, bottom, right = self.pads
        padded = self.image[0] + top + bottom, self.image[1] + left + right
        height, width = (
            (padded[i] - self.dilations[i] * (self.size[i] - 1) - 1) // self.strides[i] + 1 for i in (0, 1)
        )
        return height, width

    @property
    def rows(self) -> Window:
        """What is left of it over an image whose columns have been looked up."""
        (top, _, bottom, _), width = self.pads, self.output[1]
        return Window(
            (self.image[0], width), (self.size[0], 1), (self.strides[0], 1), (top, 0, bottom, 0), (self.dilations[0], 1)
        )

    @property
    def pointwise(self) -> bool:
        """Whether output pixel `i` depends on input pixel `i` alone."""
        return self.size == (1, 1) and self.strides == (1, 1) and not any(self.pads)
