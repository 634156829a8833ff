"""Compile model.onnx in a build script, and decide by the figures of the report."""

from __future__ import annotations

import sys

import optc


def main(passes: str = "prune,svd,quant") -> int:
    build = optc.compile(
        "model.onnx", passes=passes, data="calib.npz", output="model.optc.onnx", budget="size=100%", cache=".cache"
    )
    report = build.report
    agreement = 1.0 if report.agreement is None else report.agreement.share
    print(f"{report.before.bytes:,} -> {report.after.bytes:,} bytes, agreement {agreement:.1%}")
    if not build.met or agreement < 0.8:
        print("the result is not good enough to ship", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
