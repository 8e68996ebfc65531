# SPDX-License-Identifier: GPL-3.0-or-later
"""Switches the telemetry of libraries off, before they are imported. Standard library only.

ONNX Runtime 1.29 and later sends telemetry: ten seconds after the import it looks up a vendor's host and writes an id
and a queue below the user's cache. `disable_telemetry_events()` does not stop that; the variable does, if it is set
before the import. Hugging Face's libraries ping their hub with every download.

`tests/unit/test_no_calls.py` watches the sockets and files of whole processes.
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
    """Set the variables in this process; call this before an engine's library is imported."""
    os.environ.update(VARIABLES)
