"""Batches to learn from: samples drawn anew for every step, under views, with what the teacher answers to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...ir.graph import Graph, Value
from ...runtime.parallel import imap, threads_each, threads_for
from ...runtime.samples import Feeds, Samples
from ...runtime.session import Session
from .loss import Floats
from .views import Views

PLAIN = 2
"""Passes over the samples before views of them are shown: views teach nothing while the samples themselves are new."""
NEW = 8
"""Passes before most of what is shown are views."""


class Batches:
    """What `teacher` answers in its `values` to batches of `samples` under `views`.

    Each pass over the samples is in an order of its own. Which samples and views a step has depends on `seed` and the
    number of the step alone, so that a training can be repeated from any step on. The first `plain` passes over the
    samples show them as they are.
    """

    def __init__(
        self,
        teacher: Graph,
        values: Sequence[Value],
        samples: Samples,
        views: Views,
        *,
        batch: int,
        plain: int = PLAIN,
        seed: int = 0,
        threads: int = 0,
    ) -> None:
        self.samples = samples
        self.views = views
        self.batch = min(batch, samples.count) if samples.batched else 1
        self.seed = seed
        self.unseen = plain * samples.count
        self.threads = threads_for(teacher, threads)
        self._session = Session(teacher, outputs=values, threads=threads_each(self.threads))

    def steps(self, first: int, count: int) -> Iterator[Feeds]:
        """The feeds of so many steps: the samples, and the teacher's value number i as `teacher.i`."""
        return imap(self._feeds, range(first, first + count), self.threads)

    def plain(self, most: int) -> Iterator[list[Floats]]:
        """The teacher's values for the samples as they are, batch by batch, of at most so many samples."""
        some = self.samples.take(most, self.seed)
        return imap(self._answers, some.batches(self.batch), self.threads)

    def _feeds(self, step: int) -> Feeds:
        at = drawn(step, self.batch, self.samples.count, self.seed)
        feeds = next(self.samples.pick(at).batches(len(at)))
        if step * self.batch >= self.unseen:
            new = step * self.batch < NEW * self.samples.count
            feeds = self.views(feeds, np.random.default_rng((self.seed, step)), new=new)
        return {**feeds, **{f"teacher.{i}": x for i, x in enumerate(self._answers(feeds))}}

    def _answers(self, feeds: Feeds) -> list[Floats]:
        return [np.asarray(x, np.float32) for x in self._session.run(feeds)]


class TaughtRows:
    """What a block reads and what it should answer, both kept: batches of `read`, the input `name`, and `answers`."""

    def __init__(self, name: str, read: Floats, answers: Floats, *, batch: int, seed: int = 0) -> None:
        self.name = name
        self.read = read
        self.answers = answers
        self.batch = min(batch, len(read))
        self.seed = seed

    def steps(self, first: int, count: int) -> Iterator[Feeds]:
        """The feeds of so many steps."""
        for step in range(first, first + count):
            at = drawn(step, self.batch, len(self.read), self.seed)
            yield {self.name: self.read[at], "teacher.0": self.answers[at]}


def drawn(step: int, batch: int, count: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """The samples of a step: the next of the order of its pass over all of them, which may end within a batch."""
    start = step * batch
    turns = range(start // count, (start + batch - 1) // count + 1)
    order = np.concatenate([np.random.default_rng((seed, turn, count)).permutation(count) for turn in turns])
    first = start - turns[0] * count
    return np.asarray(order[first : first + batch], np.intp)
