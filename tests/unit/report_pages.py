# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report of a batch shows."""

from __future__ import annotations

import base64
import json
import re
import zlib


def shown_in(page: str) -> list[dict]:
    """The lines that a browser unpacks from a report."""
    packed = re.search(r'<script type="text/plain" id="data">([A-Za-z0-9+/=]*)</script>', page)
    assert packed
    return json.loads(zlib.decompress(base64.b64decode(packed[1], validate=True)))
