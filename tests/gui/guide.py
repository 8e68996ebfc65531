# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the pictures of docs/user-guide.md again: a real Blender goes through the guide's steps.

    python tests/gui/guide.py [SCENARIO ...]

Without arguments it runs all scenarios whose names begin with guide_. What they took replaces the pictures in
docs/images/guide.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import run  # noqa: E402

OUTPUT = run.ROOT / "out" / "guide"
PICTURES = run.ROOT / "docs" / "images" / "guide"


def names() -> list[str]:
    """Names of the guide's scenarios, which cannot be imported outside Blender."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("scenarios_*.py")))
    return [name for text in texts for name in re.findall(r"^def (guide_\w+)", text, re.MULTILINE)]


def main() -> int:
    """Run the scenarios and keep their pictures; returns the exit status."""
    status = run.main([*(sys.argv[1:] or names()), "--output", str(OUTPUT)])
    taken = sorted((OUTPUT / "guide").glob("*.png"))
    PICTURES.mkdir(parents=True, exist_ok=True)
    for picture in taken:
        shutil.copy(picture, PICTURES / picture.name)
    print(f"guide: {len(taken)} pictures are in {PICTURES}")
    return status


if __name__ == "__main__":
    sys.exit(main())
