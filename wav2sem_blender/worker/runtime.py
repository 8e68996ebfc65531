# SPDX-License-Identifier: GPL-3.0-or-later
"""The torch runtime that the user can install with a click: a Python environment in the extension's folder.

    env/             the environment; unfinished until there is a complete.json
    cache/           pip's downloads, so that a second attempt continues where the first ended; removed when complete
    complete.json    what was installed, and its size

Standard library only, no bpy.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from ..files import write_atomically

# The versions of constraints.txt (a test compares them); torchaudio is only for training.
REQUIREMENTS = (
    'numpy==1.26.4; python_version < "3.13"',
    'numpy==2.5.5; python_version >= "3.13"',
    "soundfile==0.14.0",
    "soxr==1.1.0",
    "safetensors==0.8.0",
    "torch==2.14.1",
    "transformers==5.23.0",
    "tokenizers==0.23.3",
    "huggingface_hub==2.4.0",
)
# The Pythons for which all of these have wheels.
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))


@dataclass(frozen=True)
class Size:
    """Approximate size of the download and on disk; `device` is what the wheels are built for."""

    download_bytes: int
    disk_bytes: int
    device: str


def expected_size(has_index: bool = False) -> Size:
    """The size from PyPI for this machine; for another index, whose size is unknown, the smallest one."""
    if sys.platform == "linux" and platform.machine() == "x86_64" and not has_index:
        # Measured with torch 2.14.1, which includes NVIDIA's libraries.
        return Size(3_100_000_000, 5_900_000_000, "NVIDIA GPUs (CUDA) and the CPU")
    return Size(400_000_000, 1_500_000_000, "Apple GPUs (Metal)" if sys.platform == "darwin" else "the CPU")


@dataclass(frozen=True)
class Runtime:
    """The runtime in a folder, installed or not."""

    folder: Path

    @property
    def environment(self) -> Path:
        """Folder of the environment."""
        return self.folder / "env"

    @property
    def cache(self) -> Path:
        """Folder of the downloads."""
        return self.folder / "cache"

    @property
    def python(self) -> Path:
        """The environment's interpreter, to be used only if the runtime is complete."""
        return self.environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def is_complete(self) -> bool:
        """Whether an installation has finished."""
        return self._record.is_file() and self.python.is_file()

    @property
    def is_unfinished(self) -> bool:
        """Whether an installation was cancelled or failed, and can be continued."""
        return self.environment.is_dir() and not self.is_complete

    @property
    def is_outdated(self) -> bool:
        """Whether a release with other versions installed it."""
        return self.is_complete and self._read()["requirements"] != list(REQUIREMENTS)

    @property
    def size_bytes(self) -> int:
        """Disk use of a complete runtime."""
        return int(self._read()["size_bytes"])

    def set_complete(self) -> None:
        """Record that the installation has finished."""
        record = {"requirements": REQUIREMENTS, "size_bytes": disk_use(self.environment)}
        write_atomically(self._record, (json.dumps(record, indent=1) + "\n").encode())

    def set_unfinished(self) -> None:
        """Call this before anything in the environment changes."""
        self._record.unlink(missing_ok=True)

    @property
    def _record(self) -> Path:
        return self.folder / "complete.json"

    def _read(self) -> dict:
        return json.loads(self._record.read_text(encoding="utf-8"))


def disk_use(folder: Path) -> int:
    """Bytes of all files below a folder; links are not followed."""
    return sum((Path(parent) / name).lstat().st_size for parent, _, names in os.walk(folder) for name in names)


def in_words(size_bytes: float) -> str:
    """A size as in "5.9 GB" or "38 MB"."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{max(1, round(size_bytes / 1e6))} MB"
