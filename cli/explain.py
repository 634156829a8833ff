"""`optc explain NODE --report R.json`."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from .console import console


def explain(
    node: str,
    /,
    *,
    report: str,
    traceback: Annotated[bool, Parameter(negative=())] = False,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Show what every pass of a build did with a layer, and why.

    Parameters
    ----------
    node
        Name of a layer, or a pattern such as 'block3.*' (quoted, so that the shell leaves it alone).
    report
        What --report NAME.json of the build wrote.
    traceback
        Show the Python traceback of an error.
    json_
        Print it as JSON.

    Examples
    --------
        optc explain conv1 --report report.json
        optc explain 'block3.*' --report report.json --json
    """
    from ..report import explain as record

    found = record.events(record.load(report), node)
    if json_:
        print(json.dumps(record.as_dict(found), indent=2, ensure_ascii=False))
    else:
        console().print(record.render(found))
    return 0
