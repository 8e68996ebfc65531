# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of the last runs and edits, so that the next edit need not make it again."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(OrderedDict[Key, Value]):
    """So many entries as were used last; older ones are dropped."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def put(self, key: Key, value: Value) -> Value:
        """Keep an entry, new or not, as the one that was used last; returns its value."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > self._most:
            self.popitem(last=False)
        return value
