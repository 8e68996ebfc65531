# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of a batch on the workers of a Dask cluster, which have this package and see the same folders.

Dask makes a line again when its worker is lost. A line's files are written whole or not at all, and only its answer
makes a record, so that nothing is lost and nothing is there twice.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import Text, UserError
from ..worker import protocol
from . import line
from .manifest import Row
from .pool import Answer

if TYPE_CHECKING:
    from ..pipeline.infer import SpeechAnimator

# As many lines wait on the cluster for each of its threads: enough that none idles, few enough that a night fits.
_WAITING = 3
_CONNECT_S = 20
_RETRIES = 2


def made(
    rows: Iterable[Row], arguments_of: Callable[[Row], Mapping[str, Any]], *, address: str
) -> Generator[tuple[Row, Answer], None, None]:
    """Make lines, and yield each with its answer as soon as it is made.

    Args:
        rows: The lines.
        arguments_of: What `line.run` is told of a row.
        address: The scheduler's, such as "tcp://host:8786".

    Raises:
        UserError: Dask is not installed, or the scheduler does not answer.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise UserError("--scheduler needs Dask: pip install distributed") from error
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(
            "{address}: no scheduler of Dask answers there ({reason}).", address=address, reason=error
        ) from error
    with client, client.as_current():
        waiting, rows_of = iter(rows), {}

        def submit(row: Row) -> Any:
            arguments = {**arguments_of(row), "memory_bytes": 0}  # Dask's own limit holds
            future = client.submit(make, arguments, pure=False, retries=_RETRIES)
            rows_of[future.key] = row
            return future

        n_threads = max(1, sum(client.nthreads().values()))
        futures = as_completed([submit(row) for row in islice(waiting, _WAITING * n_threads)])
        for future in futures:
            row = rows_of.pop(future.key)
            yield row, _answer(future)
            future.release()
            if (following := next(waiting, None)) is not None:
                futures.add(submit(following))


def make(arguments: Mapping[str, Any]) -> Any:
    """On a worker of the cluster: a line's answer as plain data."""
    return protocol.plain(line.run(arguments, _models()))


def _answer(future: Any) -> Answer:
    error = future.exception()
    if error is not None:
        return {"error": Text("the cluster gave the line up ({reason})", reason=error), "cause": "engine"}
    answer: Answer = protocol.with_texts(future.result())
    return answer


class _Models:
    """The model that was used last."""

    @cache  # noqa: B019 (one object for the process's life)
    def get(self, model: str, engine: str, device: str) -> SpeechAnimator:
        """The animator for these settings."""
        from ..pipeline.infer import SpeechAnimator

        return SpeechAnimator.load(model, engine=engine, device=device)


@cache
def _models() -> _Models:
    return _Models()
