# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report of a batch shows."""

from __future__ import annotations

import itertools
import json
import re


def shown_in(page: str) -> list[dict]:
    """The lines as a browser reads them from a report; pictures as the record has them."""
    data, columns, rest, first = (
        re.search(pattern, page)[1]
        for pattern in (
            r'<script type="application/json" id="data">([^<]*)</script>',
            r"const names = (\[.*?\])",
            r"const REST = (\[.*?\])",
            r"letter.charCodeAt\(0\) - (\d+)",
        )
    )
    lines = [dict(zip(json.loads(columns), row, strict=True)) for row in json.loads(data)]
    for line in lines:
        bars, lips = (bytes((ord(letter) - int(first)) % 256 for letter in line[name]) for name in ("bars", "lips"))
        line["bars"] = bytes(4 * height for height in bars).hex()
        begins = itertools.cycle(json.loads(rest))
        line["lips"] = bytes((begin - below) % 256 for begin, below in zip(begins, lips, strict=False)).hex()
    return lines
