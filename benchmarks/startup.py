"""How long `import optc` and the help of every command take: the fastest of a few runs, in milliseconds.

    python benchmarks/startup.py

Exits with 1 where one is over its bound.
"""

from __future__ import annotations

import subprocess
import sys
import time

RUNS = 5
IMPORT, HELP = 300, 500
COMMANDS = ("", "inspect", "diff", "check", "bench", "explain", "build", "init", "passes", "targets", "zoo")


def fastest(*arguments: str) -> float:
    taken = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - start)
    return 1e3 * min(taken)


def main() -> int:
    figures = {"import optc": (fastest("-c", "import optc"), IMPORT)}
    for command in COMMANDS:
        figures[f"optc {command} --help".replace("  ", " ")] = fastest("-m", "optc", *command.split(), "--help"), HELP
    for name, (seconds, bound) in figures.items():
        print(f"{name:24} {seconds:6.0f} ms{'' if seconds < bound else f'  over {bound}'}")
    return int(any(seconds >= bound for seconds, bound in figures.values()))


if __name__ == "__main__":
    sys.exit(main())
