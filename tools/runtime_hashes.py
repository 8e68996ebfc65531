# SPDX-License-Identifier: GPL-3.0-or-later
"""The SHA-256 of every package that the add-on's runtimes install, for all platforms: worker/requirements/*.txt.

    pip install uv && python tools/runtime_hashes.py      # after a pin of worker/runtime.py has changed

uv finds which versions the pinned packages need, and takes the hashes from the package index.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from wav2sem_blender.files import write_atomically
from wav2sem_blender.worker.runtime import ALL, PIP, PIP_HASHES, PYTHONS

_HEADER = "# Made by tools/runtime_hashes.py; do not edit.\n"


def main() -> None:
    """Write the files."""
    oldest = ".".join(map(str, min(PYTHONS)))
    command = ["uv", "pip", "compile", "--universal", "--python-version", oldest, "--generate-hashes", "--quiet"]
    command += ["--no-header", "--no-annotate", "--only-binary=:all:", "-"]
    for file, requirements in {PIP_HASHES: (PIP,), **{p.hashes: p.requirements for p in ALL.values()}}.items():
        text = "\n".join(requirements)
        made = subprocess.run(command, input=text, check=True, stdout=subprocess.PIPE, encoding="utf-8")
        write_atomically(file, (_HEADER + made.stdout).encode())


if __name__ == "__main__":
    main()
