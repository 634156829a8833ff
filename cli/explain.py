"""`optc explain NODE --report R.json`."""

from __future__ import annotations

from .console import PLAINLY, Voice


def explain(
    node: str,
    /,
    *,
    report: str,
    voice: Voice = PLAINLY,
) -> int:
    """Show what every pass of a build did with a layer, and why.

    Parameters
    ----------
    node
        Name of a layer, or a pattern such as 'block3.*' (quoted, so that the shell leaves it alone).
    report
        What --report NAME.json of the build wrote.

    Examples
    --------
        optc explain conv1 --report report.json
        optc explain 'block3.*' --report report.json --json
    """
    from ..report import explain as record

    events = record.events(record.load(report), node)
    voice.say(record.as_dict(events), record.render(events))
    return 0
