# SPDX-License-Identifier: GPL-3.0-or-later
"""What a batch tells while it works: sentences for a person, or one JSON object a line for a program."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

_INTERVAL_S = 10.0  # between two lines of progress, where stderr is a file
_REDRAW_S = 0.2
_TOLD = ("row", "name", "state", "cause", "error", "confidence")


class Teller:
    """Tells how far a run is. With `as_json`, each event is a line on stdout and nothing else is printed there."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._on_terminal = sys.stderr.isatty() and not as_json
        self._begin_s = time.monotonic()
        self._told_s = self._begin_s
        self._n_todo = self._n_done = self._n_noted = 0
        self._audio_s = 0.0
        self._shown = 0

    def start(self, n_rows: int, n_todo: int, n_workers: int) -> None:
        """How much there is to do."""
        self._n_todo, self._begin_s = n_todo, time.monotonic()
        self._tell(
            {"event": "start", "rows": n_rows, "to_make": n_todo, "workers": n_workers},
            f"{n_rows} lines, {n_rows - n_todo} made before, {n_todo} to make with {n_workers} workers",
        )

    def line(self, record: dict[str, Any]) -> None:
        """A line is made or has failed."""
        self._n_done += 1
        self._audio_s += record.get("seconds", 0.0)
        event: dict[str, Any] = {name: record[name] for name in _TOLD if name in record}
        if self._as_json:
            self._tell({"event": "line", **event, **self.figures()}, "")
            return
        if record["state"] != "made":
            self._clear()
            print(f"row {record['row']}: {record['name']}: {record['error']}", file=sys.stderr, flush=True)
        self._n_noted += bool(record.get("notes"))  # of thousands of notes nobody reads one here
        now_s = time.monotonic()
        if now_s - self._told_s >= (_REDRAW_S if self._on_terminal else _INTERVAL_S):
            self._told_s = now_s
            self._show()

    def figures(self) -> dict[str, float]:
        """Lines done, audio seconds a second, and seconds left."""
        passed_s = max(time.monotonic() - self._begin_s, 1e-9)
        left_s = passed_s / max(1, self._n_done) * (self._n_todo - self._n_done)
        return {
            "done": self._n_done,
            "of": self._n_todo,
            "audio_s_per_s": round(self._audio_s / passed_s, 1),
            "left_s": round(left_s, 1),
        }

    def fault(self, row: int, text: str) -> None:
        """A fault of the manifest."""
        self._tell({"event": "fault", "row": row, "text": text}, "")
        if not self._as_json:
            print(f"row {row}: {text}" if row else text, file=sys.stderr)

    def error(self, cause: str, text: str) -> None:
        """Why the run ends."""
        self._clear()
        self._tell({"event": "error", "cause": cause, "text": text}, "")
        print(f"wav2sem: {text}", file=sys.stderr, flush=True)

    def end(self, code: int, cause: str, **counts: object) -> None:
        """The run is over."""
        self._clear()
        passed_s = time.monotonic() - self._begin_s
        figures = self.figures()
        speed = f", {figures['audio_s_per_s']:.0f}x realtime" if self._n_done else ""
        noted = f", {self._n_noted} with notes in the report" if self._n_noted else ""
        self._tell(
            {"event": "end", "code": code, "cause": cause, **counts, "seconds": round(passed_s, 1), **figures},
            f"{counts.get('made', 0)} lines made, {counts.get('failed', 0)} failed{noted}, {passed_s:.1f} s{speed}; "
            f"{counts.get('report', '')}",
        )

    def _show(self) -> None:
        figures = self.figures()
        line = (
            f"{figures['done']} of {figures['of']}  {figures['audio_s_per_s']:.0f}x realtime  "
            f"{_clock(figures['left_s'])} left"
        )
        if self._on_terminal:
            print(f"\r{line}".ljust(self._shown + 1), end="", file=sys.stderr, flush=True)
            self._shown = len(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._shown:
            print("\r" + " " * self._shown + "\r", end="", file=sys.stderr, flush=True)
            self._shown = 0

    def _tell(self, event: dict[str, Any], sentence: str) -> None:
        if self._as_json:
            print(json.dumps(event), flush=True)
        elif sentence:
            print(sentence, flush=True)


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"
