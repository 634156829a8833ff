"""Charts are drawn so that everything in them is seen."""

from __future__ import annotations

import pytest

from optc.report.page.charts import _legend, curve

pytest.importorskip("matplotlib")


def test_a_legend_covers_nothing_that_is_drawn() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.9, 2.0), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.barh(["a", "b"], [1.0, 9.0], label="before")
    axes.barh(["c", "d"], [9.0, 9.0], label="after")
    _legend(axes)
    canvas.draw()
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y0 >= axes.get_window_extent().y1 - 1
    assert legend.get_window_extent().y1 <= figure.bbox.y1


def test_a_training_is_drawn_with_both_losses_and_its_best() -> None:
    svg = str(curve("Training", [(0, None, 0.3), (8, 0.2, 0.25), (16, 0.1, 0.11), (24, None, 0.4)]))
    assert "24 steps; held-out loss 0.3 at first, 0.11 at best" in svg
    assert ">fit<" in svg
    assert ">held out<" in svg


def test_a_training_whose_losses_are_no_numbers_is_drawn() -> None:
    assert "<svg" in str(curve("Training", [(0, None, None), (8, None, None)]))
