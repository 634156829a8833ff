"""What each bomb of the tests takes: peak memory and processor seconds of every command that reads it, in a table.

    python benchmarks/bombs.py [--commands inspect,clean,check,lossy,host,diff] [--names tile,laughs-40]

A bomb is a model of a few bytes that asks for more than any machine has (`tests/bombs.py`). The limits are twice the
file and one GiB, and ten seconds; what is beyond them is marked, and makes the exit status 1. Seconds are beside the
imports, which the child is forked from.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SECONDS = 10
COMMANDS = {
    "inspect": ["inspect", "m.onnx", "-q"],
    "clean": ["m.onnx", "--passes", "clean", "--no-check", "-q", "-o", "out.onnx"],
    "check": ["m.onnx", "--passes", "clean", "--samples", "2", "-q", "-o", "out.onnx"],
    "lossy": ["m.onnx", "--passes", "prune,svd,quant", "--samples", "4", "-q", "-o", "out.onnx"],
    "host": ["m.onnx", "--passes", "clean", "--target", "host", "--no-check", "-q", "-o", "out.tar"],
    "diff": ["diff", "m.onnx", "m.onnx"],
}


def main() -> int:
    from bombs import BOMBS
    from measured import measured

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", default="inspect,clean,check,lossy,diff", help="host needs apache-tvm")
    parser.add_argument("--names", default=",".join(BOMBS))
    options = parser.parse_args()
    words = options.commands.split(",")
    beyond = 0
    print(f"| bomb | bytes | {' | '.join(words)} |\n|---|{'---|' * (len(words) + 1)}")
    for name in options.names.split(","):
        data = BOMBS[name]().SerializeToString()
        cells = []
        for word in words:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "m.onnx").write_bytes(data)
                taken = measured(COMMANDS[word], Path(folder), modules=["tvm"] if word == "host" else [])
            wrong = taken.memory > 2 * len(data) + (1 << 30) or taken.seconds > SECONDS or taken.status not in (0, 2)
            beyond += wrong
            answer = {0: "done", 2: "refused"}.get(taken.status, f"status {taken.status}")
            cells.append(f"{answer}, {taken.memory >> 20} MiB, {taken.seconds:.1f} s{' !' if wrong else ''}")
        print(f"| {name} | {len(data)} | {' | '.join(cells)} |", flush=True)
    print(f"\n{beyond} beyond the limits", flush=True)
    return min(beyond, 1)


if __name__ == "__main__":
    sys.exit(main())
