# SPDX-License-Identifier: GPL-3.0-or-later
"""Subscribe the real Blender to a repository, install from it and animate, by Blender's commands; in `nox -s gui`.

    python tests/gui/repository.py [--output out/gui_repository]

The program itself writes the index beside the release's zip, as docs/publishing.md tells. Debian's Blender has no
network while it does all this, and no library of the add-on but those in the zip.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import debian_blender  # noqa: E402
import run  # noqa: E402

REPOSITORY = "studio"
EXTENSION = "wav2sem_blender"
LIMIT_S = 300


def steps(folder: Path) -> dict[str, list[str]]:
    """Each step and its arguments for Blender, in order; `folder` is the repository's."""
    extension = ["--command", "extension"]
    # Blender requires this before it refreshes any repository, even one on disk.
    online = ["--online-mode", *extension]
    script = str(run.ROOT / "tests" / "blender" / "installed_extension.py")
    exit_code = ["--background", "--python-exit-code", "3"]
    return {
        "write the index": [*extension, "server-generate", "--html", "--repo-dir", str(folder)],
        "subscribe": [*extension, "repo-add", REPOSITORY, "--url", f"{folder.as_uri()}/index.json", "--clear-all"],
        "synchronize": [*online, "sync"],
        "install": [*online, "install", "--enable", EXTENSION],
        "animate": [*exit_code, "--python", script, "--", "--installed", f"bl_ext.{REPOSITORY}.{EXTENSION}"],
        "remove": [*extension, "remove", EXTENSION],
    }


def main() -> int:
    """Run all steps; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=run.ROOT / "out" / "gui_repository", help="folder")
    output = parser.parse_args().output.resolve()
    run.FOLDER.empty(output)
    folder, user = output / "repository", output / "user"
    for made in (folder, user):
        made.mkdir(parents=True)
    try:
        program = run.Program(output, user)
    except debian_blender.UnavailableError as error:
        print(f"SKIPPED: Blender's program cannot be had: {error}")
        return 0
    print(f"repository: {run.pack(folder).name}", flush=True)
    for name, arguments in steps(folder).items():
        done = program.run(arguments, window=False, offline=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           timeout=LIMIT_S)  # fmt: skip
        (output / f"{name.replace(' ', '_')}.log").write_text(done.stdout, encoding="utf-8")
        if done.returncode:
            print(f"{done.stdout[-3000:]}\nrepository: FAILED to {name} ({done.returncode})")
            return 1
        said = [line for line in done.stdout.splitlines() if line.startswith(("STATUS", "OK:"))]
        print(f"repository: {name}: {said[-1] if said else 'done'}", flush=True)
    left = list(user.glob(f"extensions/{REPOSITORY}/{EXTENSION}"))
    print(f"repository: removed, and left {left or 'nothing'}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
