"""A student of its own: another network, trained or not, that the model teaches.

It must read what the model reads and answer what the model answers. Inputs and outputs go by their names, and the
others by their order; the result has the names of the model. Where the model ends in a Softmax or Sigmoid and
the student does not, the student gets one: builders of networks end in logits.
"""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING

from ..errors import ModelError
from ..ir.graph import Graph, Output, Value
from ..ir.shapes.infer import infer
from ..ir.text.literal import type_text
from ..ir.types import TensorType, Type
from .model import load, prepare

if TYPE_CHECKING:
    from .options import Path

_ENDS = ("Softmax", "LogSoftmax", "Sigmoid")


def student_of(path: Path, teacher: Graph) -> Graph:
    """The student in a file, or of the zoo, with the interface of `teacher`.

    Raises `ModelError` where it is no model, or one of other inputs or outputs.
    """
    name = os.fspath(path)
    student = load(name)
    prepare(student, name)
    for index, value in _matched(name, "input", student.inputs, teacher.inputs):
        student.inputs[index].name = value.name
    for index, output in _matched(name, "output", student.outputs, teacher.outputs):
        _end_alike(student, index, output)
        student.outputs[index].name = output.name
    infer(student)
    return student


def stranger(teacher: Graph) -> Graph:
    """`teacher` with names of its own inside: a layer of the student that is called as one of it is another layer."""
    for node in teacher.walk():
        for value in node.outputs:
            value.name = f"teacher.{value.name}"
    return teacher


def _matched(
    name: str, what: str, mine: tuple[Value | Output, ...], theirs: tuple[Value | Output, ...]
) -> list[tuple[int, Value | Output]]:
    """For each of the student's, by its place, the teacher's. Raises `ModelError` where they do not fit."""
    if len(mine) != len(theirs):
        raise ModelError(
            f"student {name}: it has {len(mine)} {what}s ({_listed(mine)}), and the model {len(theirs)} "
            f"({_listed(theirs)}); they must be the same"
        )
    names = {one.name: one for one in theirs}
    rest = iter([one for one in theirs if one.name not in {own.name for own in mine}])
    pairs = [(one, names[one.name] if one.name in names else next(rest)) for one in mine]
    for one, other in pairs:
        if not _fits(_type(one), _type(other)):
            alike = [each.name for each in theirs if each is not other and _fits(_type(one), _type(each))]
            hint = f"; nearest to it is '{_nearest(one.name, alike)}'" if alike else ""
            own, wanted = type_text(_type(one)), type_text(_type(other))
            raise ModelError(
                f"student {name}: its {what} '{one.name}' is {own}, that of the model, '{other.name}', {wanted}{hint}"
            )
    return [(index, other) for index, (_, other) in enumerate(pairs)]


def _end_alike(student: Graph, index: int, output: Value | Output) -> None:
    assert isinstance(output, Output)
    end, own = output.value.producer, student.outputs[index].value
    if end is None or end.op not in _ENDS or end.domain or (own.producer is not None and own.producer.op in _ENDS):
        return
    added = student.add(end.op, [own], end.attributes, types=[own.type], outputs=[end.op.lower()])
    student.set_output(index, added.output)


def _type(one: Value | Output) -> Type | None:
    return one.value.type if isinstance(one, Output) else one.type


def _fits(mine: Type | None, theirs: Type | None) -> bool:
    """Whether types may be of the same tensors: sizes that a model leaves open fit any."""
    if not isinstance(mine, TensorType) or not isinstance(theirs, TensorType):
        return mine == theirs
    if mine.dtype is not theirs.dtype:
        return False
    if mine.shape is None or theirs.shape is None:
        return True
    numbers = ((a, b) for a, b in zip(mine.shape, theirs.shape) if isinstance(a, int) and isinstance(b, int))
    return len(mine.shape) == len(theirs.shape) and all(a == b for a, b in numbers)


def _nearest(name: str, names: list[str]) -> str:
    """Of `names`, the one most like `name`, the first where none is."""
    return difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]


def _listed(values: tuple[Value | Output, ...]) -> str:
    return ", ".join(f"'{one.name}'" for one in values) or "none"
