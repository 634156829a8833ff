"""A build as JUnit XML, for the test tab of a CI server: one case a limit of the budget, one a pass.

A missed limit is a failure that names the layers to look at. A pass that the guard undid is skipped, with the reason:
the build went on without it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ..passes.base import Outcome
from .verdict import RANKED_BY, sentence

if TYPE_CHECKING:
    from .build import BuildReport, PassRecord, Validation
    from .verdict import CostlyLayer, Verdict

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold in any spelling."""


def render(report: BuildReport) -> str:
    """The document, ending in a newline."""
    root = ElementTree.Element("testsuites", name="optc")
    add(root, report, report.model)
    return text(root, report.seconds)


def add(root: ElementTree.Element, report: BuildReport, name: str) -> None:
    """Add the suites of one build, called by its `name`, to the document."""
    if report.budget is not None:
        _budget(root, name, report.budget)
    if report.validation is not None:
        _validation(root, report.target, report.validation)
    suite = ElementTree.SubElement(root, "testsuite", name=legal(f"passes on {name}"))
    for step in report.steps:
        _pass(suite, step)


def text(root: ElementTree.Element, seconds: float) -> str:
    """The document with its suites counted."""
    for one in root:
        one.set("tests", str(len(one)))
        for total, tag in (("failures", "failure"), ("skipped", "skipped"), ("errors", "error")):
            one.set(total, str(sum(case.find(tag) is not None for case in one)))
        one.set("time", f"{sum(float(case.get('time', 0)) for case in one):.3f}")
    for total in ("tests", "failures", "skipped", "errors"):
        root.set(total, str(sum(int(one.get(total, 0)) for one in root)))
    root.set("time", f"{seconds:.3f}")
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def legal(text: str) -> str:
    """`text` with every character that XML cannot hold spelled as an escape."""
    return _ILLEGAL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _budget(root: ElementTree.Element, model: str, verdict: Verdict) -> None:
    suite = ElementTree.SubElement(root, "testsuite", name=legal(f"budget of {model}"))
    for result in verdict.results:
        case = ElementTree.SubElement(suite, "testcase", classname="optc.budget", name=str(result.limit), time="0")
        if result.met:
            ElementTree.SubElement(case, "system-out").text = sentence(result)
        else:
            failure = ElementTree.SubElement(case, "failure", type="budget", message=sentence(result))
            look = [_layer(one) for one in verdict.layers if one.by == RANKED_BY[result.limit.metric]]
            failure.text = legal("\n".join([sentence(result), *look]))


def _validation(root: ElementTree.Element, target: str, validation: Validation) -> None:
    suite = ElementTree.SubElement(root, "testsuite", name="artifact")
    case = ElementTree.SubElement(suite, "testcase", classname="optc.artifact", name=legal(target), time="0")
    if validation.samples:
        ElementTree.SubElement(case, "system-out").text = legal(validation.text)
    else:
        ElementTree.SubElement(case, "skipped", message=legal(validation.text))


def _layer(one: CostlyLayer) -> str:
    figures = {"bytes": one.bytes, "MACs": one.macs, "error": one.error}
    said = ", ".join(f"{name} {value:.6g}" for name, value in figures.items() if value is not None)
    return f"  by {one.by}: {one.name} ({one.op}): {said}"


def _pass(suite: ElementTree.Element, step: PassRecord) -> None:
    report = step.report
    seconds = f"{report.seconds:.3f}"
    case = ElementTree.SubElement(suite, "testcase", classname="optc.passes", name=legal(report.spec), time=seconds)
    undone = [layer for layer in report.layers if layer.outcome is Outcome.REVERTED]
    if undone and not report.changed:
        ElementTree.SubElement(case, "skipped", message=legal(f"reverted: {undone[0].reason}"))
    ElementTree.SubElement(case, "system-out").text = legal("\n".join([report.summary, *report.notes]))
