"""What a graph can do without, and what stays has the names of what it stands for.

A file of `tests/golden/blocks` holds a graph, a line `---`, and the graph without the block whose node is called
`goes`; `--- none` says that there is none. `--update-golden` writes what comes out now; read the difference.
"""

from __future__ import annotations

from pathlib import Path

import golden_text
import pytest

from optc.ir.shapes.infer import infer
from optc.ir.text.parse import parse
from optc.ir.verify.verify import verify
from optc.passes.prune.blocks import BlockKind


@golden_text.cases("blocks")
def test_golden(path: Path, request: pytest.FixtureRequest) -> None:
    before, _, expected = path.read_text().partition("\n---")
    graph = parse(before + "\n")
    verify(graph)
    blocks = BlockKind().named(graph)
    if expected.strip() == "none":
        assert not blocks
        return
    blocks["goes"].apply(graph)
    verify(graph)
    infer(graph, fresh=True)
    golden_text.compare(path, f"{before}\n", golden_text.text(graph), expected.removeprefix("\n"), request)
