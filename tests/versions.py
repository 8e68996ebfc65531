# SPDX-License-Identifier: GPL-3.0-or-later
"""Write down in which Blender a check ran, and how it went: what docs/versions.md is made from.

The checks run inside Blender and call `record`; where the variable WAV2SEM_VERSIONS names a folder, as the sessions
`blender` and `gui` do for whole runs, a small JSON file appears there. `.ci/versions_table.py` makes the table.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
from pathlib import Path

FOLDER_VARIABLE = "WAV2SEM_VERSIONS"


def record(check: str, **counts: int) -> None:
    """Write what came out of `check` in the running Blender, in place of what an earlier run wrote.

    Args:
        check: One of the columns of `.ci/versions_table.py`.
        counts: passed, failed, skipped …; a check says failed=1 when it starts, so that a crash is not taken for the
            success of the run before.
    """
    if not (folder := os.environ.get(FOLDER_VARIABLE)):
        return
    import bpy

    entry = {
        "check": check,
        "blender": bpy.app.version_string,
        "run_as": "module bpy" if bpy.app.module else "program",
        "python": platform.python_version(),
        "system": f"{_system()}, {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "counts": counts,
    }
    name = re.sub(r"[^\w.]+", "-", f"{entry['blender']} {entry['run_as']} {check}")
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / f"{name}.json").write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return f"{platform.system()} {platform.release()}"
