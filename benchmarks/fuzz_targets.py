"""Random models of many operators on a target of TVM, against ONNX Runtime: how many are equal, refused, wrong, or end
in an error.

python benchmarks/fuzz_targets.py [--target host|opencl] [--count N] [--seed N] [--operators N] [--save FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    from random_models import judged, random_model

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="host", help="host or opencl")
    parser.add_argument("--count", type=int, default=100, help="so many models")
    parser.add_argument("--seed", type=int, default=0, help="the number of the first of them")
    parser.add_argument("--operators", type=int, default=14, help="operators of each")
    parser.add_argument("--save", default="", help="a folder for models that are not answered rightly")
    options = parser.parse_args()
    counts = Counter[str]()
    for seed in range(options.seed, options.seed + options.count):
        model = random_model(seed, options.operators)
        verdict = judged(model, options.target)
        counts[verdict.kind] += 1
        if verdict.kind not in ("equal", "skipped"):
            print(f"{verdict.kind:8} {seed}: {verdict.why}", flush=True)
            if options.save and verdict.kind != "refused":
                model.save(Path(options.save) / f"{options.target}-{seed}")
    print(", ".join(f"{count} {kind}" for kind, count in counts.most_common()), f"of {options.count}")


if __name__ == "__main__":
    main()
