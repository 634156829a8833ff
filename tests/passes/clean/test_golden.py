"""Every rule of `clean`, on graphs written as text.

A file `RULE--CASE.txt` in `tests/golden/clean` holds a graph, a line `---`, and the graph that `clean` makes of it;
`--- unchanged` says that no rule may fire. `--update-golden` writes what is made now; read the difference.
"""

from __future__ import annotations

from pathlib import Path

import golden_text
import pytest
from equivalence import assert_equivalent, feeds

from optc.ir.graph import Graph
from optc.ir.text.parse import parse
from optc.ir.verify.verify import verify
from optc.passes.base import Context, Report, TargetFacts
from optc.passes.clean import Clean
from optc.passes.clean.rules import RULES

FOLDER = Path(__file__).parents[2] / "golden" / "clean"
CASES = sorted(FOLDER.glob("*.txt"), key=lambda path: path.stem)
NAMES = {rule.name for rule in RULES} | {"fold", "duplicate", "duplicate-constant", "dead", "inline"}
NOT_RUN = (
    *("batchnorm-after--read", "duplicate--random", "fold--larger", "identity--training"),
    *("reshape-constant--input", "view-no-op--other"),
)
"""Cases whose outputs are random, or whose inputs would have to be a shape."""

ULPS = 8.0


def clean(graph: Graph) -> Report:
    return Clean().run(graph, Context(TargetFacts("onnx")))


def split(path: Path) -> tuple[str, bool, str]:
    """The text before the line `---`, whether nothing may change, and the text after it."""
    before, mark, after = path.read_text().partition("\n---")
    assert mark, f"{path.name} has no line ---"
    first, _, rest = after.partition("\n")
    assert first in ("", " unchanged"), f"{path.name}: {first!r} after ---"
    return before + "\n", first == " unchanged", rest


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path, request: pytest.FixtureRequest) -> None:
    before, unchanged, expected = split(path)
    original, graph = parse(before), parse(before)
    verify(original)
    report = clean(graph)
    verify(graph)
    text = golden_text.text(graph)
    if unchanged:
        assert not report.rewrites
        assert text == golden_text.text(original)
    else:
        assert report.rewrites.get(path.stem.split("--")[0]), f"the rule did not fire; these did: {report.rewrites}"
        golden_text.compare(path, before, text, expected, request)
    if path.stem not in NOT_RUN:
        assert_equivalent(original, graph, feeds(original, dims={"H": 3}), ulps=ULPS)
    again = clean(graph)
    assert not again.rewrites
    assert golden_text.text(graph) == text


def test_every_rule_has_a_case_that_fires_and_one_that_does_not() -> None:
    fires = {path.stem.split("--")[0] for path in CASES if not split(path)[1]}
    refuses = {path.stem.split("--")[0] for path in CASES if split(path)[1]}
    assert fires == NAMES
    assert refuses == NAMES
