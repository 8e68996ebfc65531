# SPDX-License-Identifier: GPL-3.0-or-later
"""Drive the add-on in a real Blender window and take pictures; `nox -s gui` runs it.

    python tests/gui/run.py [SCENARIO ...] [--output out/gui]

Blender comes from Debian sid (see debian_blender.py), or is the program that WAV2SEM_BLENDER names, which then uses
this session's DISPLAY. The extension's zip is the one of a release: what it carries is all that Blender gets.
Writes result.json, blender.log and the pictures. Needs `pip` and `packaging`.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import debian_blender  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from wav2sem_blender.files import FolderKind  # noqa: E402

# Scenarios may keep any file in it.
FOLDER = FolderKind(made_by="tests/gui", names=("*",))
PLATFORM = "linux-x64"
LIMIT_S = 2000
SCREEN = (1600, 900)
# No socket leaves the name space, so the display's number cannot clash.
XVFB = """
Xvfb :97 -screen 0 {width}x{height}x24 +extension GLX -nolisten tcp -nolisten local 2>/dev/null &
until test -S /tmp/.X11-unix/X97; do sleep 0.1; done
DISPLAY=:97 "$@"
"""


def records() -> dict[str, str]:
    """The variable that names the folder of tests/versions.py, which this makes; {} where nothing is recorded."""
    named = {name: os.environ[name] for name in ("WAV2SEM_VERSIONS",) if name in os.environ}
    for folder in named.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    return named


class Program:
    """A Blender to start: the one that the user named, or Debian's."""

    def __init__(self, output: Path, user: Path | None = None) -> None:
        """Find it.

        Args:
            output: The only folder that it can write into, besides that of the records.
            user: Folder of its settings and extensions; without one, each run starts as after an installation.

        Raises:
            debian_blender.UnavailableError: There is none, and none can be had.
        """
        self.output, self.user = output, user
        self.named = os.environ.get("WAV2SEM_BLENDER", "")
        if self.named:
            if shutil.which(self.named) is None:
                raise ValueError(f"WAV2SEM_BLENDER={self.named}: there is no such program. Name Blender's executable.")
            if not os.environ.get("DISPLAY"):
                raise ValueError("WAV2SEM_BLENDER is used with this session's DISPLAY, and there is none.")
        else:
            started_s = time.monotonic()
            self.root = debian_blender.prepare()
            print(f"gui: Debian's Blender in {self.root} ({time.monotonic() - started_s:.0f} s)", flush=True)

    def run(
        self, arguments: Sequence[str], *, window: bool, offline: bool = False, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run Blender with `arguments`; `offline` cuts the network off, but not for a Blender that the user named."""
        # Debian's Blender has its own temporary folder.
        user = self.user or (self.output / "user" if self.named else Path("/tmp/blender"))
        own = {"BLENDER_USER_RESOURCES": str(user), **records()}
        if self.named:
            return subprocess.run([self.named, *arguments], env={**os.environ, **own}, text=True, **options)
        inside = [debian_blender.BLENDER, *arguments]
        if window:
            inside = ["sh", "-c", XVFB.format(width=SCREEN[0], height=SCREEN[1]), "sh", *inside]
        writable = [self.output, *map(Path, records().values())]
        line = debian_blender.command(self.root, inside, readable=[ROOT], writable=writable, offline=offline)
        return subprocess.run(line, env=debian_blender.environment(own), text=True, **options)


def pack(folder: Path) -> Path:
    """Build the release's zip in `folder`."""
    packer = runpy.run_path(str(ROOT / ".ci" / "pack_extension.py"))
    return Path(packer["build_zip"](PLATFORM, packer["fetch_wheels"](PLATFORM), folder))


def report(result: dict[str, object]) -> str:
    """Return the result as lines for the terminal."""
    lines = [f"Blender {result['blender']}, Python {result['python']}, {result['zip']}"]
    for entry in result["scenarios"]:
        lines.append(f"  {'ok  ' if entry['passed'] else 'FAIL'} {entry['name']} ({entry['seconds']:.0f} s)")
        lines += [f"         {name}: {value}" for name, value in (entry.get("figures") or {}).items()]
        lines += [f"         {entry['error']}"] if "error" in entry else []
    return "\n".join([*lines, *([str(result["error"])] if "error" in result else [])])


def main(arguments: list[str] | None = None) -> int:
    """Run the scenarios; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="*", help="names from scenarios.py (default: all)")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "gui", help="folder (default: out/gui)")
    options = parser.parse_args(arguments)
    output = options.output.resolve()
    FOLDER.empty(output)
    try:
        program = Program(output)
    except debian_blender.UnavailableError as error:
        print(f"SKIPPED: Blender's program cannot be had: {error}")
        return 0
    archive = pack(output)
    window = ["-p", "0", "0", *map(str, SCREEN)]
    script = ["--python-exit-code", "3", "--python", str(ROOT / "tests" / "gui" / "inside.py")]
    start = ["--factory-startup", "--enable-event-simulate", *window, *script]
    with (output / "blender.log").open("w", encoding="utf-8") as log:
        finished = program.run(
            [*start, "--", str(archive), str(output), *options.scenario],
            window=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
        )
    result_file = output / "result.json"
    if not result_file.is_file():
        tail = (output / "blender.log").read_text(encoding="utf-8", errors="replace")[-3000:]
        print(f"{tail}\ngui: Blender ended with {finished.returncode} and without a result; see {output}/blender.log")
        return 1
    result = json.loads(result_file.read_text(encoding="utf-8"))
    print(report(result))
    print(f"gui: {sum(1 for _ in output.glob('*.png'))} pictures, result.json and blender.log are in {output}")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
