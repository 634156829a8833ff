"""Training steps: they go down, are the same again, resume, keep zeros and ties, and stay within memory."""

from __future__ import annotations

import numpy as np
import pytest

from optc.errors import DataError, ModelError, TargetError
from optc.ir.graph import Graph, Value
from optc.ir.tensor import ArrayTensor
from optc.ir.types import DType, TensorType
from optc.models import zoo
from optc.runtime.session import Session
from optc.runtime.training import losses
from optc.runtime.training.optimizer import AdamW, Floats, clip_by_norm
from optc.runtime.training.parameters import Parameters
from optc.runtime.training.peak import Peak
from optc.runtime.training.schedule import Constant, Cosine
from optc.runtime.training.trainer import Trainer


class Task:
    """A small convolutional net that a disturbed copy of itself is taught by."""

    def __init__(self, *, sparse: bool = False, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.graph = zoo.load("digits_dscnn")
        images = zoo.samples("digits_dscnn", "calib")["input"][:64]
        answers = Session(self.graph, threads=1).run({"input": images})[0]
        logits = self.graph.outputs[0].value
        teacher = self.graph.add_input("teacher", TensorType(DType.FLOAT, ("N", 10)))
        self.loss = losses.divergence(self.graph, logits, teacher, temperature=2.0)
        self.weights = [v for v in self.graph.constants if v.dtype is DType.FLOAT and len(v.static_shape or ()) > 1]
        for value in self.weights:
            data = np.array(value.numpy())
            data += (0.2 * data.std() * random.standard_normal(data.shape)).astype(np.float32)
            if sparse:
                data *= random.random(data.shape) < 0.5
            value.constant = ArrayTensor(data)
        self.feeds = {"input": images, "teacher": answers}

    def trainer(self, *, keep_zeros: bool = False, **options: object) -> Trainer:
        settings: dict[str, object] = {"schedule": Constant(1e-3, 1), "threads": 1, **options}
        parameters = Parameters(self.weights, keep_zeros=keep_zeros)
        return Trainer(self.graph, self.loss, parameters, **settings)  # type: ignore[arg-type]


def test_the_loss_goes_down_and_is_the_same_again() -> None:
    runs = []
    for _ in range(2):
        trainer = Task().trainer(threads=2)
        runs.append([trainer.step(trainer_feeds) for trainer_feeds in [Task().feeds] * 8])
    assert runs[0][-1] < 0.5 * runs[0][0]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("micro", [7, 64])
def test_micro_batches_add_up_to_the_batch(micro: int) -> None:
    task = Task()
    whole, parts = task.trainer(), task.trainer(threads=2)
    parts.micro = micro
    loss, gradient = whole.gradient(task.feeds)
    other, summed = parts.gradient(task.feeds)
    assert other == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(summed, gradient, atol=1e-5 * float(np.abs(gradient).max()))


def test_gradients_are_those_of_differences() -> None:
    task = Task()
    trainer = task.trainer()
    _, gradient = trainer.gradient(task.feeds)
    gradient = gradient.copy()
    direction = gradient / np.linalg.norm(gradient)
    losses_ = []
    for sign in (1, -1):
        trainer.parameters.flat += np.float32(sign * 2e-3) * direction
        losses_.append(trainer.gradient(task.feeds)[0])
        trainer.parameters.flat -= np.float32(sign * 2e-3) * direction
    assert (losses_[0] - losses_[1]) / 4e-3 == pytest.approx(float(gradient @ direction), rel=2e-2)


def test_zeros_stay_zeros() -> None:
    task = Task(sparse=True)
    before = {value: value.numpy() == 0 for value in task.weights}  # type: ignore[union-attr]
    trainer = task.trainer(keep_zeros=True, average=0.5)
    first = trainer.step(task.feeds)
    for _ in range(5):
        last = trainer.step(task.feeds)
    assert last < first
    for flat in (None, trainer.averaged):
        trainer.parameters.write(flat)
        for value, zero in before.items():
            data = value.numpy()
            assert data is not None
            np.testing.assert_array_equal(data[zero], 0)
            assert (data[~zero] != 0).all()


def test_what_may_not_move_stays_whatever_it_holds() -> None:
    """Weight decay moves what has no gradient, too: not what is masked, and not what is frozen."""
    graph = Graph("g", opsets={"": 17, "own": 1})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    start = np.arange(1, 17, dtype=np.float32).reshape(4, 4) / 16
    frozen, free = graph.constant(start, "frozen"), graph.constant(start.copy(), "free")
    strange = graph.add("Hardmax", [graph.add("MatMul", [x, frozen]).output], {"axis": -1}).output
    target = graph.add_input("target", TensorType(DType.FLOAT, ("N", 4)))
    loss = losses.squared_error(graph, graph.add("MatMul", [strange, free]).output, target)
    mask = np.ones((4, 4), bool)
    mask[0] = False
    parameters = Parameters([frozen, free], masks={free: mask})
    trainer = Trainer(graph, loss, parameters, optimizer=AdamW(decay=0.5), schedule=Constant(1e-2, 1), threads=1)
    assert [one.node.op for one in trainer.backward.frozen] == ["Hardmax"]
    random = np.random.default_rng(0)
    for _ in range(3):
        trainer.step({name: random.standard_normal((8, 4)).astype(np.float32) for name in ("x", "target")})
    parameters.write()
    np.testing.assert_array_equal(frozen.numpy(), start)  # type: ignore[arg-type]
    moved = free.numpy()
    assert moved is not None
    np.testing.assert_array_equal(moved[0], start[0])
    assert (moved[1:] != start[1:]).all()


def test_a_run_that_was_killed_goes_on_where_it_stopped() -> None:
    task = Task()
    options: dict[str, object] = {"schedule": Cosine(1e-3, 6, 2), "average": 0.9}
    straight = task.trainer(**options)
    for _ in range(6):
        straight.step(task.feeds)
    first = task.trainer(**options)
    for _ in range(3):
        first.step(task.feeds)
    state = {name: array.copy() for name, array in first.state().items()}
    second = task.trainer(**options)
    second.go_on(state)
    for _ in range(3):
        second.step(task.feeds)
    np.testing.assert_array_equal(second.parameters.flat, straight.parameters.flat)
    assert straight.averaged is not None
    assert second.averaged is not None
    np.testing.assert_array_equal(second.averaged, straight.averaged)
    for other in ({**options, "average": None}, options):
        if other is options:
            del state["moment1"]
        with pytest.raises(ValueError, match="other parameters or another optimizer"):
            task.trainer(**other).go_on(state)


def test_ties_move_together() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    start = np.eye(4, dtype=np.float32)
    one, other = graph.constant(start, "one"), graph.constant(start.copy(), "other")
    hidden = graph.add("Tanh", [graph.add("MatMul", [x, one]).output]).output
    target = graph.add_input("target", TensorType(DType.FLOAT, ("N", 4)))
    loss = losses.squared_error(graph, graph.add("MatMul", [hidden, other]).output, target)
    parameters = Parameters([one, other], ties=[(one, other)])
    assert parameters.flat.size == 16
    trainer = Trainer(graph, loss, parameters, schedule=Constant(1e-2, 1), threads=1)
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal((8, 4)).astype(np.float32) for name in ("x", "target")}
    assert trainer.step(feeds) > trainer.step(feeds)
    parameters.write()
    np.testing.assert_array_equal(one.numpy(), other.numpy())  # type: ignore[arg-type]
    assert not np.array_equal(one.numpy(), start)  # type: ignore[arg-type]
    other.constant = ArrayTensor(start)
    with pytest.raises(ModelError, match="hold different numbers"):
        Parameters([one, other], ties=[(one, other)])


def test_a_loss_that_is_no_number_moves_nothing() -> None:
    task = Task()
    trainer = task.trainer()
    before = trainer.parameters.flat.copy()
    broken = {**task.feeds, "input": np.full_like(task.feeds["input"], np.nan)}
    assert np.isnan(trainer.step(broken))
    np.testing.assert_array_equal(trainer.parameters.flat, before)
    assert trainer.steps == 0


def test_memory_bounds_the_micro_batch() -> None:
    task = Task()
    feeds = {name: np.tile(array, (16, *[1] * (array.ndim - 1))) for name, array in task.feeds.items()}
    free = task.trainer()
    with Peak() as unbounded:
        free.step(feeds)
    bound = unbounded.bytes // 4
    tight = task.trainer(memory=bound)
    tight.step(feeds)
    assert 1 <= tight.micro < 1024
    with Peak() as peak:
        tight.step(feeds)
    assert peak.bytes <= bound
    with pytest.raises(DataError, match="one sample takes"):
        task.trainer(memory=1).step(feeds)


def test_batches_that_do_not_fit_are_named() -> None:
    task = Task()
    with pytest.raises(DataError, match="no 'teacher'"):
        task.trainer().step({"input": task.feeds["input"]})
    with pytest.raises(DataError, match="different numbers of samples"):
        task.trainer().step({**task.feeds, "teacher": task.feeds["teacher"][:3]})


def test_a_provider_that_is_not_installed_is_named() -> None:
    with pytest.raises(TargetError, match="no NowhereExecutionProvider here; installed are"):
        Task().trainer(providers=["NowhereExecutionProvider"])


def test_the_minimum_is_reached() -> None:
    optimizer = AdamW(decay=0.01)
    goal = np.array([1.0, -2.0, 3.0], np.float32)
    place: Floats = np.zeros(3, np.float32)
    state = optimizer.state(3)
    for step in range(1, 400):
        optimizer.move(place, (place - goal).copy(), state, step, 0.05)
    np.testing.assert_allclose(place, goal, atol=0.1)


def test_adamw_is_the_published_one() -> None:
    """Against the formulas, written out for one number."""
    optimizer, place = AdamW(0.9, 0.99, 1e-8, 0.1), np.array([0.5], np.float32)
    state, m, v, w = optimizer.state(1), 0.0, 0.0, 0.5
    for step in range(1, 6):
        slope = 2 * w
        optimizer.move(place, np.array([2 * place[0]], np.float32), state, step, 0.01)
        m, v = 0.9 * m + 0.1 * slope, 0.99 * v + 0.01 * slope**2
        w = w * (1 - 0.01 * 0.1) - 0.01 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.99**step)) + 1e-8)
    assert float(place[0]) == pytest.approx(w, rel=1e-5)


def test_schedules() -> None:
    cosine = Cosine(1.0, 101, 1, floor=0.1)
    assert [cosine.rate(s) for s in (1, 2, 101)] == pytest.approx([1.0, 1.0, 0.1])
    assert Cosine(1.0, 10, 4).rate(2) == pytest.approx(0.5)
    assert Constant(0.3, 5).rate(99) == 0.3


def test_clipping() -> None:
    gradient = np.array([3.0, 4.0], np.float32)
    assert clip_by_norm(gradient, 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose(gradient, [0.6, 0.8], rtol=1e-6)


def test_what_is_no_float_constant_cannot_be_trained() -> None:
    graph = Graph("g", opsets={"": 17})
    value: Value = graph.constant(np.arange(3), "counts")
    with pytest.raises(ModelError, match="'counts' is no float32 constant"):
        Parameters([value])
