# SPDX-License-Identifier: GPL-3.0-or-later
"""Choose the utterances of each step's global batch, and load them ahead of time.

A batch depends only on the seed and the step: every process, and a resumed run, draws the same one.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np

Rng = Callable[..., np.random.Generator]
LOADING_THREADS = 4
STEPS_AHEAD = 2
LARGEST_BATCH = 4096  # utterances


class Epochs:
    """Batches of `size` random utterances, or of as many of similar lengths as fill `batch_samples` when padded.

    Each epoch has every utterance once and the same number of batches, each of at least `at_least` utterances.
    """

    def __init__(
        self, lengths: Sequence[int], rng: Rng, *, size: int = 1, batch_samples: float = 0, at_least: int = 1
    ) -> None:
        """Plan the batches.

        Args:
            lengths: samples of every utterance.
            rng: `Run.rng`.
        """
        self._lengths = np.asarray(lengths)
        self._rng, self._bucketed = rng, batch_samples > 0
        ascending = np.sort(self._lengths)
        self.sizes = _cut(ascending, size, batch_samples, at_least)
        self._epoch, self._plan = -1, [np.empty(0, int)]

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.sizes)

    def __call__(self, step: int) -> list[int]:
        """The utterances of a step."""
        epoch, within = divmod(step, len(self))
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._shuffled(self._rng(0, epoch))
        return self._plan[within].tolist()

    def _shuffled(self, rng: np.random.Generator) -> list[np.ndarray]:
        count = len(self._lengths)
        ends = np.cumsum(self.sizes)[:-1]
        if not self._bucketed:
            return np.split(rng.permutation(count), ends)
        # New groups every epoch, from utterances whose ranks by length are close.
        rank = np.empty(count)
        rank[np.argsort(self._lengths, kind="stable")] = np.arange(count)
        reach = min(8 * count / len(self), count / 16)
        batches = np.split(np.argsort(rank + rng.uniform(0, reach, count), kind="stable"), ends)
        return [batches[i] for i in rng.permutation(len(batches))]


def _cut(ascending: np.ndarray, size: int, batch_samples: float, at_least: int) -> list[int]:
    sizes: list[int] = []
    done = 0
    while done < len(ascending):
        n = max(size, at_least)
        if batch_samples > 0:
            some = ascending[done : done + LARGEST_BATCH]
            padded = some * np.arange(1, len(some) + 1)
            n = max(at_least, 1, int(np.searchsorted(padded, batch_samples, side="right")))
        sizes.append(min(n, len(ascending) - done))
        done += sizes[-1]
    if len(sizes) > 1 and sizes[-1] < at_least:
        sizes[-2:] = [sum(sizes[-2:])]
    return sizes


@dataclass(frozen=True)
class Item:
    """One utterance of a global batch: its place in the batch, its index in the data, and its samples once loaded."""

    place: int
    index: int
    _load: Callable[[], np.ndarray]

    def samples(self) -> np.ndarray:
        """float32 (S,)."""
        return self._load()


class Loader:
    """Reads this process's utterances of the next steps in threads; decoding releases Python's lock."""

    def __init__(
        self,
        draw: Callable[[int], list[int]],
        load: Callable[[int, int, int], np.ndarray],
        steps: int,
        process: int = 0,
        n_processes: int = 1,
    ) -> None:
        """`draw(step)` gives a global batch, `load(step, place, index)` the samples of one utterance of it."""
        self._draw, self._load, self._steps = draw, load, steps
        self._process, self._n_processes = process, n_processes
        self._threads = ThreadPoolExecutor(LOADING_THREADS)
        self._pending: dict[int, list[Item]] = {}

    def __enter__(self) -> Loader:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what is not needed any more."""
        self._threads.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> list[Item]:
        """The global batch of a step; samples of other processes' items are read on demand."""
        for ahead in range(step, min(step + 1 + STEPS_AHEAD, self._steps)):
            if ahead not in self._pending:
                self._pending[ahead] = [self._item(ahead, *place) for place in enumerate(self._draw(ahead))]
        return self._pending.pop(step)

    def _item(self, step: int, place: int, index: int) -> Item:
        if place % self._n_processes == self._process:  # as `Run.share` deals them
            future: Future[np.ndarray] = self._threads.submit(self._load, step, place, index)
            return Item(place, index, future.result)
        return Item(place, index, lambda: self._load(step, place, index))
