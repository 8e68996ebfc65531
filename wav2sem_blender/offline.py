# SPDX-License-Identifier: GPL-3.0-or-later
"""Libraries that would report to their makers are told not to, before they are imported.

ONNX Runtime 1.29 and later sends telemetry: ten seconds after its import it asks for a vendor's host and writes an id
and a queue below the user's cache. Its own `disable_telemetry_events()` does not stop that; the variable does, and only
when it is set before the import. Hugging Face's libraries ping their hub with every download.

`tests/unit/test_no_calls.py` watches the sockets and files of whole processes. Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

VARIABLES: Mapping[str, str] = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def silence_libraries() -> None:
    """Set the variables in this process; call it before an engine's library is imported."""
    os.environ.update(VARIABLES)
