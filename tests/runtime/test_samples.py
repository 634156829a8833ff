"""Samples: every source gives the graph's feeds, whole, in order, and says in one line what is wrong."""

from __future__ import annotations

import gc
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from optc.errors import DataError
from optc.ir.graph import Graph
from optc.ir.types import DType, Shape, TensorType
from optc.runtime.axes import batch_axes
from optc.runtime.samples import Samples
from optc.runtime.sources import load_samples


def graph_of(**inputs: Shape | tuple[DType, Shape]) -> Graph:
    graph = Graph("g", opsets={"": 17})
    for name, shape in inputs.items():
        if shape and isinstance(shape[0], DType):
            dtype, shape = shape  # type: ignore[assignment]
        else:
            dtype = DType.FLOAT
        graph.add_input(name, TensorType(dtype, shape))  # type: ignore[arg-type]
    return graph


def joined(samples: Samples, name: str, size: int = 4, axis: int = 0) -> np.ndarray:
    return np.concatenate([feeds[name] for feeds in samples.batches(size)], axis)


def rng(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


IMAGE = graph_of(input=("N", 3, 8, 8))
LSTM = graph_of(input=("N", 16), state=(2, "N", 5))


@pytest.mark.parametrize(
    ("graph", "axes"),
    [
        (IMAGE, {"input": 0}),
        (LSTM, {"input": 0, "state": 1}),
        (graph_of(x=("T", "N", 4)), {"x": 1}),
        (graph_of(x=("T", "batch_size", 4), h=("batch_size", 2)), {"x": 1, "h": 0}),
        (graph_of(x=("rows", 4), h=(2, "rows", 4)), {"x": 0, "h": 1}),
        (graph_of(x=(None, 4)), {"x": 0}),
        (graph_of(x=(1, "T")), {"x": None}),
        (graph_of(x=("N", "T"), rate=(DType.INT64, ())), {"x": 0, "rate": None}),
        (graph_of(x=(1, 3, 8, 8)), {"x": None}),
        (graph_of(x=(50, "N", 4), h=(1, "N", 2)), {"x": 1, "h": 1}),
        (graph_of(x=(1, 3, "N")), {"x": None}),
        (graph_of(x=(1, "N", 3), normals=(1, "N", 3)), {"x": None, "normals": None}),
        (graph_of(x=("T", 1, 80)), {"x": None}),
        (graph_of(x=("seq_len", "batch", 80)), {"x": 1}),
        (graph_of(x=("num_nodes", 8), edges=(2, "num_edges")), {"x": None, "edges": None}),
    ],
)
def test_batch_axis_is_found_from_the_graph(graph: Graph, axes: dict[str, int | None]) -> None:
    assert batch_axes(graph) == axes


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_streams_in_order_and_whole(tmp_path: Path, compressed: bool) -> None:
    data = rng((11, 3, 8, 8))
    (np.savez_compressed if compressed else np.savez)(tmp_path / "d.npz", input=data)
    samples = load_samples(tmp_path / "d.npz", IMAGE)
    assert samples.count == 11
    assert [len(f["input"]) for f in samples.batches(4)] == [4, 4, 3]
    np.testing.assert_array_equal(joined(samples, "input"), data)


def test_npz_is_mapped_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", input=rng((4, 3, 8, 8)))
    column = load_samples(tmp_path / "d.npz", IMAGE)._columns[0]
    base = column.array
    while not isinstance(base, np.memmap):
        base = base.base
    assert base.mode == "r"


def test_fortran_order_and_second_axis_batches(tmp_path: Path) -> None:
    x, state = rng((6, 16)), rng((2, 6, 5))
    np.savez(tmp_path / "graph.npz", input=np.asfortranarray(x), state=state)
    np.savez(tmp_path / "first.npz", input=x, state=np.moveaxis(state, 1, 0))
    for name in ("graph", "first"):
        samples = load_samples(tmp_path / f"{name}.npz", LSTM)
        np.testing.assert_array_equal(joined(samples, "input"), x)
        np.testing.assert_array_equal(joined(samples, "state", axis=1), state)


def test_states_whose_samples_have_no_name_stand_where_the_arrays_say() -> None:
    """A cell's states [2, ?, 5] beside frames [?, 16]: as many samples as frames; one whole state is for all."""
    graph = graph_of(input=(None, 16), state=(2, None, 5))
    x, states = rng((6, 16)), rng((2, 6, 5))
    samples = load_samples({"input": x, "state": states}, graph)
    np.testing.assert_array_equal(joined(samples, "state", axis=1), states)
    assert [f["state"].shape for f in samples.batches(4)] == [(2, 4, 5), (2, 2, 5)]
    shared = load_samples({"input": x, "state": states[:, :1]}, graph)
    assert [f["state"].shape for f in shared.batches(1)] == [(2, 1, 5)] * 6


def test_static_batch_of_one_is_fed_one_at_a_time() -> None:
    data = rng((3, 3, 8, 8))
    samples = load_samples(data, graph_of(x=(1, 3, 8, 8)))
    assert [f["x"].shape for f in samples.batches(16)] == [(1, 3, 8, 8)] * 3
    np.testing.assert_array_equal(joined(samples, "x"), data)
    kept = load_samples(data[:, None], graph_of(x=(1, 3, 8, 8)))
    np.testing.assert_array_equal(joined(kept, "x"), data)


def test_static_batch_of_two_takes_two_rows_at_a_time_and_names_the_rest() -> None:
    samples = load_samples({"x": rng((5, 4))}, graph_of(x=(2, 4)))
    assert samples.count == 2
    assert "left out" in samples.notes[0]


def test_shared_input_goes_with_every_batch() -> None:
    graph = graph_of(x=("N", 4), rate=(DType.INT64, ()))
    samples = load_samples({"x": rng((5, 4)), "rate": np.array(16000)}, graph)
    assert [(len(f["x"]), int(f["rate"])) for f in samples.batches(3)] == [(3, 16000), (2, 16000)]


def test_folder_of_npy_with_lengths_of_their_own(tmp_path: Path) -> None:
    graph = graph_of(ids=(DType.INT64, ("N", "T")), mask=(DType.INT64, ("N", "T")))
    for name in ("ids", "mask"):
        (tmp_path / name).mkdir()
        for i, length in enumerate((5, 5, 7)):
            np.save(tmp_path / name / f"{i}.npy", np.full((length,), i, np.int32))
    samples = load_samples(tmp_path, graph)
    assert [f["ids"].shape for f in samples.batches(8)] == [(2, 5), (1, 7)]
    assert all(f["mask"].dtype == np.int64 for f in samples.batches(8))


def test_rows_with_all_axes_of_the_input_are_whole_tensors(tmp_path: Path) -> None:
    """Sequences of 50 steps are not 50 samples, nor is a point of a cloud one, whatever its axis is called."""
    for name, shape, row in (("T", ("T", 1, 80), (50, 1, 80)), ("n", (1, 3, "N"), (1, 3, 24)), ("r", ("r", 4), (5, 4))):
        data, graph = rng((6, *row)), graph_of(x=shape)
        np.savez(tmp_path / f"{name}.npz", x=data)
        (tmp_path / name).mkdir()
        for i in range(0, 6, 2):
            np.save(tmp_path / name / f"{i}.npy", data[i : i + 2])
        for source in (tmp_path / f"{name}.npz", tmp_path / name, data):
            feeds = [f["x"] for f in load_samples(source, graph).batches(4)]
            np.testing.assert_array_equal(np.stack(feeds), data)


def test_a_file_a_sequence_and_an_array_of_steps(tmp_path: Path) -> None:
    """Files of one sequence each are as many samples; one array of steps alone can only be many of one step."""
    data, graph = rng((3, 50, 1, 80)), graph_of(x=("T", 1, 80))
    for i, row in enumerate(data):
        np.save(tmp_path / f"{i}.npy", row[: 50 - i])
    assert [f["x"].shape for f in load_samples(tmp_path, graph).batches(8)] == [(n, 1, 80) for n in (50, 49, 48)]
    assert [f["x"].shape for f in load_samples(({"x": row} for row in data), graph).batches(8)] == [(50, 1, 80)] * 3
    steps = load_samples(data[0], graph)
    assert [f["x"].shape for f in steps.batches(32)] == [(32, 1, 80), (18, 1, 80)]
    assert "'T' is taken to count samples" in steps.notes[0]


def test_folder_of_npy_each_a_batch(tmp_path: Path) -> None:
    data = rng((5, 3, 8, 8))
    np.save(tmp_path / "a.npy", data[:3])
    np.save(tmp_path / "b.npy", data[3])
    np.save(tmp_path / "c.npy", data[4:])
    np.testing.assert_array_equal(joined(load_samples(tmp_path, IMAGE), "input"), data)


def test_onnx_test_data(tmp_path: Path) -> None:
    import onnx

    data = rng((4, 3, 8, 8))
    for i in range(4):
        folder = tmp_path / f"test_data_set_{i}"
        folder.mkdir()
        (folder / "input_0.pb").write_bytes(onnx.numpy_helper.from_array(data[i : i + 1]).SerializeToString())
    np.testing.assert_array_equal(joined(load_samples(tmp_path, IMAGE), "input"), data)
    assert load_samples(tmp_path / "test_data_set_2", IMAGE).count == 1


def test_images_are_scaled_resized_and_laid_out(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    (tmp_path / "cat").mkdir()
    image.fromarray(pixels).save(tmp_path / "cat" / "0.png")
    image.fromarray(np.repeat(pixels, 2, axis=1)).save(tmp_path / "cat" / "1.png")
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    samples = load_samples(tmp_path, IMAGE, mean=mean, std=std)
    want = ((pixels / 255 - mean) / std).astype(np.float32)
    np.testing.assert_allclose(joined(samples, "input")[0], want.transpose(2, 0, 1), atol=1e-5)
    middle = np.repeat(pixels, 2, axis=1)[:, 4:12]
    np.testing.assert_allclose(
        joined(samples, "input")[1], (((middle / 255) - mean) / std).transpose(2, 0, 1), atol=1e-5
    )
    raw = load_samples(tmp_path, graph_of(x=("N", 8, 8, 3)), mean=127.5, std=127.5, resize=(8, 8))
    np.testing.assert_allclose(joined(raw, "x")[0], (pixels - 127.5) / 127.5, atol=1e-5)
    (tmp_path / "cat" / "2.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"2\.png: cannot be read as an image"):
        list(load_samples(tmp_path, IMAGE).batches(8))


def test_images_go_in_whole_batches_where_the_model_takes_so_many(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    for i, one in enumerate(pixels):
        image.fromarray(one).save(tmp_path / f"{i}.png")
    samples = load_samples(tmp_path, graph_of(x=(3, 3, 8, 8)))
    feeds = [feed["x"] for feed in samples.batches(8)]
    np.testing.assert_allclose(np.concatenate(feeds), pixels[:6].transpose(0, 3, 1, 2) / np.float32(255), atol=1e-6)
    assert [feed.shape for feed in feeds] == [(3, 3, 8, 8)] * 2
    with pytest.raises(DataError, match="takes 8 images at a time, and there are 7"):
        load_samples(tmp_path, graph_of(x=(8, 3, 8, 8)))
    image.fromarray(pixels[0, :, :4]).save(tmp_path / "1.png")
    with pytest.raises(DataError, match="differ in size; give --resize"):
        list(load_samples(tmp_path, graph_of(x=(3, 3, "H", "W"))).batches(8))


def test_a_stream_of_feeds_is_kept_on_disk() -> None:
    data = rng((7, 16))
    feeds = ({"input": data[i : i + 1], "state": np.zeros((2, 1, 5), np.float32)} for i in range(7))
    samples = load_samples(feeds, LSTM)
    np.testing.assert_array_equal(joined(samples, "input"), data)
    assert samples.count == 7
    ragged = load_samples([{"x": np.ones((1, n), np.float32)} for n in (2, 3, 3)], graph_of(x=("N", "T")))
    assert [f["x"].shape for f in ragged.batches(4)] == [(1, 2), (2, 3)]


def test_samples_come_in_the_order_they_are_picked_in() -> None:
    """Also where the first and the last are as far apart as those of a stretch."""
    x = np.arange(9, dtype=np.float32)[:, None]
    samples = load_samples({"x": x}, graph_of(x=("N", 1)))
    for at in ([1, 7, 0, 4], [2, 3, 4, 5], [4, 3, 2, 1], [5, 5, 5, 5]):
        (feeds,) = samples.pick(np.array(at)).batches(4)
        assert feeds["x"][:, 0].tolist() == at


def test_split_is_disjoint_whole_and_holds_all_kinds() -> None:
    data = np.repeat(np.arange(10, dtype=np.float32), 20)[:, None]
    for ordered in (data, np.tile(data[::20], (20, 1))):
        samples = load_samples(ordered, graph_of(x=("N", 1)))
        fit, held_out = samples.split(60)
        assert (fit.count, held_out.count) == (140, 60)
        both = np.concatenate([joined(fit, "x"), joined(held_out, "x")])
        np.testing.assert_array_equal(np.sort(both, 0), data)
        assert len(np.unique(joined(held_out, "x"))) == 10
        np.testing.assert_array_equal(joined(held_out, "x"), joined(samples.split(60)[1], "x"))
    assert [part.count for part in load_samples(data[:1], graph_of(x=("N", 1))).split(5)] == [1, 1]
    assert samples.take(50).count == 50
    assert len(np.unique(joined(samples.take(50), "x"))) == 10


def test_one_array_of_any_name_serves_a_single_input() -> None:
    samples = load_samples({"images": rng((2, 3, 8, 8)).astype(np.float64)}, IMAGE)
    assert "'images' is taken for input 'input'" in samples.notes[0]
    assert "float64 is fed as float32" in samples.notes[1]
    assert joined(samples, "input").dtype == np.float32


def test_extra_arrays_are_left_out_and_named() -> None:
    samples = load_samples({"input": rng((2, 3, 8, 8)), "labels": np.arange(2)}, IMAGE)
    assert "labels" in samples.notes[0]


def bad(value: float) -> np.ndarray:
    data = rng((5, 3, 8, 8))
    data[3, 0, 0, 0] = value
    return data


@pytest.mark.parametrize(
    ("graph", "source", "message"),
    [
        (LSTM, {"input": rng((2, 16)), "stat": rng((2, 2, 5))}, "nothing for input 'state'. Did you mean 'stat'"),
        (LSTM, {"input": rng((2, 16)), "state": rng((2, 3, 5))}, "has 2 samples, input 'state' has 3"),
        (LSTM, rng((2, 16)), "gives one input, but the model has 2"),
        (IMAGE, {"input": rng((2, 8, 8, 3))}, r"shape \[2, 8, 8, 3\] does not fit input 'input' \[N, 3, 8, 8\]"),
        (IMAGE, {"input": np.zeros((2, 3, 8, 8), np.uint8)}, "element type uint8 cannot be fed"),
        (IMAGE, {"input": rng((0, 3, 8, 8))}, "no samples"),
        (IMAGE, {"input": bad(np.nan)}, "input 'input': sample 3 holds NaN"),
        (IMAGE, {"input": bad(np.inf)}, "input 'input': sample 3 holds NaN or infinity"),
        (graph_of(i=(DType.INT32, ("N",))), {"i": np.array([1, 2**40])}, "do not fit in int32"),
        (IMAGE, [[1.0]], "feed 0 is a list"),
        (Graph("empty"), rng((1, 2)), "has no inputs"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(graph: Graph, source: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(load_samples(source, graph).batches(2))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.npz", None, "no such file or folder"),
        ("junk.npz", b"junk", "cannot be read as an .npz"),
        ("junk.npy", b"junk", "cannot be read as a .npy"),
        ("data.csv", b"1,2", "not a kind of samples"),
        ("folder/readme.txt", b"", "holds no samples"),
        ("set/test_data_set_0/input_0.pb", b"\xff", "cannot be read as an ONNX tensor"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_samples(tmp_path / Path(name).parts[0], IMAGE)
    assert "\n" not in str(caught.value)


def test_truncated_npz_and_object_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", input=rng((50, 3, 8, 8)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:2000])
    np.savez(tmp_path / "object.npz", input=np.array([{}], dtype=object))
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("input.npy", "no array")
    for name in ("cut", "object", "text"):
        with pytest.raises(DataError, match=r"cannot be read as an \.npz"):
            load_samples(tmp_path / f"{name}.npz", IMAGE)


def graph_and_feeds(first: str, second: str) -> tuple[Graph, list[dict[str, np.ndarray]]]:
    graph = graph_of(nodes=(first, 5), edges=(second, 2))
    sizes = [(7, 11), (6, 6), (4, 9)]
    return graph, [{"nodes": rng((n, 5)), "edges": rng((m, 2))} for n, m in sizes]


@pytest.mark.parametrize("second", ["P", "E", None])
@pytest.mark.parametrize("source", ["feeds", "files"])
def test_arrays_that_differ_in_length_are_samples_as_they_are(second: str, source: str, tmp_path: Path) -> None:
    graph, feeds = graph_and_feeds("P", second)
    if source == "files":
        for name in ("nodes", "edges"):
            (tmp_path / name).mkdir()
            for index, feed in enumerate(feeds):
                np.save(tmp_path / name / f"{index}.npy", feed[name])
    samples = load_samples(tmp_path if source == "files" else iter(feeds), graph)
    assert len(samples) == len(feeds)
    for batch, feed in zip(samples.batches(4), feeds, strict=True):
        assert all(np.array_equal(batch[name], feed[name]) for name in feed)


def test_batches_by_name_have_one_length() -> None:
    graph, feeds = graph_and_feeds("batch", "batch")
    with pytest.raises(DataError, match="every input needs one for each"):
        load_samples(feeds, graph)


@pytest.mark.parametrize("kind", ["feeds", "feeds of many sizes", "a compressed archive"])
def test_no_file_is_left_open_to_the_collector(kind: str, tmp_path: Path) -> None:
    """Samples on disk close their files, of which Python warns otherwise; what was mapped of them stays readable."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, "T")))
    graph.add_output(graph.add("Relu", [x]).output, "y")
    rows = [np.full((1, 3 + (kind == "feeds of many sizes") * i), i, np.float32) for i in range(4)]
    with unraisable() as raised, warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        if kind.startswith("feeds"):
            samples = load_samples([{"x": row} for row in rows], graph)
        else:
            np.savez_compressed(tmp_path / "x.npz", x=np.concatenate(rows))
            samples = load_samples(tmp_path / "x.npz", graph)
        gc.collect()
        assert [float(batch["x"][0, 0]) for batch in samples.batches(1)] == [0, 1, 2, 3]
        del samples
        gc.collect()
    assert raised == []


@contextmanager
def unraisable() -> Iterator[list[str]]:
    """What is raised where nobody can catch it, as in the collector."""
    raised: list[str] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda args: raised.append(str(args.exc_value))
    try:
        yield raised
    finally:
        sys.unraisablehook = before
