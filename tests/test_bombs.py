"""What a model of a few bytes asks for is refused or left as it is, in bounded memory and time."""

from __future__ import annotations

from pathlib import Path

import pytest
from bombs import BOMBS
from measured import measured

SECONDS = 10.0
COMMANDS = {
    "inspect": ["inspect", "m.onnx", "-q"],
    "clean": ["m.onnx", "--passes", "clean", "--no-check", "-q", "-o", "out.onnx"],
}

pytestmark = pytest.mark.slow


RUN = ["m.onnx", "--passes", "clean", "--samples", "2", "-q", "-o", "out.onnx"]


@pytest.mark.parametrize("name", ["filled", "expanded", "weight", "count", "sparse", "laughs-40", "sums"])
def test_a_bomb_is_not_set_off_by_the_check(name: str, tmp_path: Path) -> None:
    data = BOMBS[name]().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    taken = measured(RUN, tmp_path)
    assert taken.status in (0, 2), taken.said
    assert "Traceback" not in taken.said
    assert taken.memory <= 2 * len(data) + (1 << 30)
    assert taken.seconds <= SECONDS


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_little(name: str, command: str, tmp_path: Path) -> None:
    data = BOMBS[name]().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    taken = measured(COMMANDS[command], tmp_path)
    assert taken.status in (0, 2), taken.said
    assert "Traceback" not in taken.said
    assert "out of memory" not in taken.said
    assert taken.memory <= 2 * len(data) + (1 << 30)
    assert taken.seconds <= SECONDS
    if command == "clean" and taken.status == 0:
        assert (tmp_path / "out.onnx").stat().st_size <= 2 * len(data) + 4096
