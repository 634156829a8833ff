"""Agreement as a person reads it: one number under one name, with what it is of and on how many samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agreement import Agreement
    from .sums import OutputAgreement


def percent(share: float | None) -> str:
    """A share of 1 in per cent, with one digit behind the point; with more where it would else read as a full 100."""
    if share is None or math.isnan(share):
        return "no figure"
    if share == 1:
        return "100 %"
    texts = [f"{100 * share:.{digits}f}" for digits in (1, 2, 3, 4)]
    return f"{next((text for text in texts if float(text) != 100), texts[-1])} %"


def text(share: float | None, measure: str, samples: int) -> str:
    """`97.7 % (kappa), on 19 samples`."""
    if share is None or math.isnan(share):
        return "no figure: nothing was compared"
    return f"{percent(share)} ({measure}), on {samples} sample{'s' if samples != 1 else ''}"


def whole_text(agreement: Agreement) -> str:
    """The agreement of a model: that of its worst output."""
    return text(agreement.share, agreement.measure, agreement.samples)


def output_text(output: OutputAgreement, samples: int) -> str:
    """The agreement of one output, and the two figures that say how far its numbers are off."""
    parts = [text(output.share, output.measure, samples)]
    parts += [] if output.kl is None else [f"KL {output.kl:.3g}"]
    parts += [] if output.sqnr_db is None else [f"SQNR {output.sqnr_db:.1f} dB"]
    parts += [output.remark] if output.remark else []
    parts += [f"{output.broken} broken"] if output.broken else []
    return "; ".join([parts[0], ", ".join(parts[1:])]) if parts[1:] else parts[0]
