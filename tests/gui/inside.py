# SPDX-License-Identifier: GPL-3.0-or-later
"""Started by Blender itself, by `run.py`: install the extension from its zip, run the scenarios, write the result.

blender --factory-startup --enable-event-simulate --python tests/gui/inside.py -- ZIP OUTPUT [SCENARIO ...]
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, str(Path(__file__).parent))

import scenarios  # noqa: E402
import scenarios_any_head  # noqa: E402
import scenarios_characters  # noqa: E402
import scenarios_first_start  # noqa: E402
import scenarios_guide  # noqa: E402
import scenarios_meddling  # noqa: E402
import scenarios_panel  # noqa: E402
import scenarios_preferences  # noqa: E402
import scenarios_recognise  # noqa: E402
import scenarios_result  # noqa: E402
import scenarios_translations  # noqa: E402
import scenarios_words  # noqa: E402
import stage  # noqa: E402
from harness import Gui, Steps, drive  # noqa: E402

record = runpy.run_path(str(Path(__file__).parents[1] / "versions.py"))["record"]

ALL = (
    *scenarios_first_start.ALL,
    *scenarios.ALL,
    *scenarios_panel.ALL,
    *scenarios_preferences.ALL,
    *scenarios_result.ALL,
    *scenarios_any_head.ALL,
    *scenarios_characters.ALL,
    *scenarios_words.ALL,
    *scenarios_recognise.ALL,
    *scenarios_translations.ALL,
    *scenarios_meddling.ALL,
)


def install(archive: Path) -> None:
    """Install and enable the zip as "Install from Disk" does."""
    result = bpy.ops.extensions.package_install_files(
        filepath=str(archive), repo="user_default", enable_on_install=True, overwrite=True
    )
    assert result == {"FINISHED"}, result
    assert stage.MODULE in bpy.context.preferences.addons, "the extension was installed but not enabled"


def run_all(gui: Gui, archive: Path, chosen: list[str], result: dict[str, Any]) -> Steps[None]:
    """Run every scenario in a fresh scene; a failed one does not stop the next."""
    with gui.override():
        install(archive)
    yield 0.5
    # The guide's pictures are made on demand, by guide.py.
    known = (*ALL, *scenarios_guide.ALL, *scenarios_words.GUIDE, *scenarios_recognise.GUIDE)
    for scenario in [one for one in known if one.__name__ in chosen] if chosen else ALL:
        start_s, first_picture = time.monotonic(), len(gui.pictures)
        entry: dict[str, Any] = {"name": scenario.__name__, "passed": True, "figures": None}
        print(f"gui: {scenario.__name__} …", flush=True)
        try:
            yield from stage.fresh_scene(gui)
            entry["figures"] = yield from scenario(gui)
        except Exception as error:
            entry |= {"passed": False, "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
            yield from gui.picture(f"failed_{scenario.__name__}")
        entry |= {"seconds": round(time.monotonic() - start_s, 1), "pictures": gui.pictures[first_picture:]}
        result["scenarios"].append(entry)
        print(f"gui: {scenario.__name__}: {entry.get('trace', entry['figures'])} ({entry['seconds']} s)", flush=True)


def main() -> None:
    """Read the command line and start the timer."""
    arguments = sys.argv[sys.argv.index("--") + 1 :]
    archive, output, chosen = Path(arguments[0]), Path(arguments[1]), arguments[2:]
    bpy.context.preferences.view.show_splash = False
    record("window", failed=1)
    result: dict[str, Any] = {
        "blender": bpy.app.version_string,
        "python": sys.version.split()[0],
        "zip": archive.name,
        "scenarios": [],
    }

    def at_end(error: BaseException | None) -> None:
        if error is not None:
            result["error"] = "".join(traceback.format_exception(error))
        result["passed"] = error is None and all(entry["passed"] for entry in result["scenarios"])
        passed = [entry["passed"] for entry in result["scenarios"]]
        record("window", passed=passed.count(True), failed=passed.count(False), error=int(error is not None))
        (output / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        sys.stdout.flush()
        # Quitting by the operator would ask about unsaved changes.
        if stage.MODULE in sys.modules:
            stage.part("blender.animate.jobs").shut_down()
        os._exit(0 if result["passed"] else 1)

    drive(run_all(Gui(output), archive, chosen, result), at_end)


main()
