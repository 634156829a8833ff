"""Every node test of ONNX's backend suite on a target of TVM: how many are equal, refused, wrong, or end in an error.

python benchmarks/conformance.py [--target host|arm64|armv7|opencl] [--cpu NAME] [--only PATTERN] [--every N]
    [--verbose]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    from conformance import Verdict, cases, judge, judge_emulated, verdict

    from optc.targets.tvm.cpu.machines import arm64, armv7, host

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", default="", help="the CPU to build for, which this one must be able to run")
    parser.add_argument(
        "--target", default="host", help="host, arm64, armv7 (under an emulator), or a GPU target with its options"
    )
    parser.add_argument("--only", default="", help="a pattern that names must match")
    parser.add_argument("--every", type=int, default=1, help="take one in so many")
    parser.add_argument("--verbose", action="store_true", help="also say why cases were refused")
    options = parser.parse_args()
    counts = Counter[str]()
    chosen = [case for case in cases() if re.search(options.only, case.name)][:: options.every]
    verdicts: Iterable[Verdict]
    with TemporaryDirectory() as folder:
        if options.target == "host":
            verdicts = (judge(case, host(options.cpu)) for case in chosen)
        elif options.target in ("arm64", "armv7"):
            machine = {"arm64": arm64, "armv7": armv7}[options.target](cpu=options.cpu)
            verdicts = judge_emulated(chosen, machine, Path(folder))
        else:
            from launched import answers

            verdicts = (verdict(case, partial(answers, spec=options.target)) for case in chosen)
        for one in verdicts:
            counts[one.kind] += 1
            if one.kind not in ("equal", "refused") or (options.verbose and one.kind == "refused"):
                print(f"{one.kind:8} {one.name}: {one.why}", flush=True)
    share = 100 * counts["equal"] / max(1, len(chosen))
    print(", ".join(f"{count} {kind}" for kind, count in counts.most_common()), f"of {len(chosen)}: {share:.1f} %")


if __name__ == "__main__":
    main()
