"""Latency: turns are fair, the ratio is the ratio, and the time is bounded. A stand-in for a session keeps time."""

from __future__ import annotations

import time

import numpy as np
import pytest

from optc.runtime import latency as module
from optc.runtime.latency import latency


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def perf_counter(self) -> float:
        return self.now


class Sleeper:
    """Takes `seconds` of the clock, more of it as the clock goes on."""

    def __init__(self, clock: Clock, name: str, seconds: float, drift: float = 0.0) -> None:
        self.clock, self.name, self.seconds, self.drift = clock, name, seconds, drift

    def run(self, feeds: object) -> list[object]:
        self.clock.order.append(self.name)
        self.clock.now += self.seconds * (1 + self.drift * self.clock.now)
        return []


@pytest.fixture(autouse=True)
def _whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is measured outside of tests."""
    monkeypatch.setattr(module, "_MOST", 1000)
    monkeypatch.setitem(latency.__kwdefaults__, "stretch", module._STRETCH)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock_stub = Clock()
    monkeypatch.setattr(module, "time", clock_stub)
    return clock_stub


def test_ratio_of_two(clock: Clock) -> None:
    first, second = latency([Sleeper(clock, "a", 0.02), Sleeper(clock, "b", 0.01)], {})  # type: ignore[list-item]
    assert (first.ratio, first.seconds) == (1, pytest.approx(0.02))
    assert second.ratio == pytest.approx(0.5)
    assert second.seconds == pytest.approx(0.01)
    assert first.rounds == 20  # steady times settle at the first look


def test_a_machine_that_slows_down_does_not_tip_the_ratio(clock: Clock) -> None:
    sessions = [Sleeper(clock, "a", 0.02, 0.5), Sleeper(clock, "b", 0.02, 0.5)]
    _, second = latency(sessions, {}, limit=4.0)  # type: ignore[arg-type]
    assert second.ratio == pytest.approx(1, abs=0.02)
    turns = "".join(clock.order[-12:])
    assert turns in ("aaabbbbbbaaa", "bbbaaaaaabbb")


def test_interrupted_runs_do_not_count(clock: Clock) -> None:
    class Interrupted(Sleeper):
        def run(self, feeds: object) -> list[object]:
            self.clock.now += 0.5 if len(self.clock.order) % 3 else 0.0
            return super().run(feeds)

    steady, interrupted = Sleeper(clock, "a", 0.01), Interrupted(clock, "b", 0.01)
    _, second = latency([steady, interrupted], {})  # type: ignore[list-item]
    assert second.ratio == pytest.approx(1)


def test_short_runs_are_repeated_and_time_is_bounded(clock: Clock) -> None:
    latency([Sleeper(clock, "a", 1e-4)], {}, limit=1.0)  # type: ignore[list-item]
    assert len(clock.order) >= 20 * 20
    clock.now = 0.0
    slow = latency([Sleeper(clock, "a", 10.0)], {}, limit=1.0)  # type: ignore[list-item]
    assert slow[0].rounds == 5


@pytest.mark.parametrize(("seconds", "rounds"), [(0.02, 5), (0.00995, 20), (0.005, 5)])
def test_a_side_of_a_border_is_told_sooner_than_a_ratio(clock: Clock, seconds: float, rounds: int) -> None:
    """Steady times: what is far off is plain at the first look, what is close is measured as any ratio is."""
    sessions = [Sleeper(clock, "a", 0.01), Sleeper(clock, "b", seconds)]
    _, second = latency(sessions, {}, border=1.0)  # type: ignore[arg-type]
    assert second.rounds == rounds
    assert second.ratio == pytest.approx(seconds / 0.01)


def test_noise_across_a_border_is_measured_on(clock: Clock) -> None:
    class Noisy(Sleeper):
        def run(self, feeds: object) -> list[object]:
            self.clock.now += 0.01 * ((len(self.clock.order) // 6) % 2)  # slow in every other round
            return super().run(feeds)

    _, second = latency([Sleeper(clock, "a", 0.01), Noisy(clock, "b", 0.008)], {}, limit=2.0, border=1.0)  # type: ignore[list-item]
    assert second.rounds > 20


def test_real_sessions() -> None:
    from optc.ir.graph import Graph
    from optc.ir.types import DType, TensorType
    from optc.runtime.session import Session

    def network(depth: int) -> Session:
        graph = Graph("g", opsets={"": 17})
        value = graph.add_input("x", TensorType(DType.FLOAT, ("N", 256)))
        for _ in range(depth):
            value = graph.add("MatMul", [value, graph.constant(np.full((256, 256), 0.01, np.float32))]).output
        graph.add_output(value, "y", TensorType(DType.FLOAT, None))
        return Session(graph, threads=1)

    start = time.perf_counter()
    one, many = latency([network(1), network(12)], {"x": np.ones((32, 256), np.float32)}, limit=0.3)
    assert time.perf_counter() - start < 30
    assert one.ratio == 1
    assert many.low <= many.ratio <= many.high
    assert many.ratio > 2
