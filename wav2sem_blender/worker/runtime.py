# SPDX-License-Identifier: GPL-3.0-or-later
"""The torch runtime that the add-on makes on the user's click: an environment of its own in the extension's folder.

    env/             the environment; half-made until complete.json says otherwise
    cache/           pip's downloads, so that a second try goes on where the first ended; gone when it is complete
    complete.json    what was installed, and how large it is

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

# The versions of constraints.txt, which a test compares; torchaudio is for training only.
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
# Pythons for which all of these have wheels.
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))


@dataclass(frozen=True)
class Size:
    """About how much there is to download and to keep; `device` is what the wheels are made for."""

    download_bytes: int
    disk_bytes: int
    device: str


def expected_size(has_index: bool = False) -> Size:
    """What pip's own index has for this machine; of another index nobody knows, so it gets the least."""
    if sys.platform == "linux" and platform.machine() == "x86_64" and not has_index:
        # Measured with torch 2.14.1, which brings NVIDIA's libraries along.
        return Size(3_100_000_000, 5_900_000_000, "NVIDIA GPUs (CUDA) and the CPU")
    return Size(400_000_000, 1_500_000_000, "Apple GPUs (Metal)" if sys.platform == "darwin" else "the CPU")


@dataclass(frozen=True)
class Runtime:
    """The one in this folder, made or not."""

    folder: Path

    @property
    def environment(self) -> Path:
        """The environment's folder."""
        return self.folder / "env"

    @property
    def cache(self) -> Path:
        """The downloads' folder."""
        return self.folder / "cache"

    @property
    def python(self) -> Path:
        """The environment's interpreter; used only when the runtime is complete."""
        return self.environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def is_complete(self) -> bool:
        """Whether an installation came to its end."""
        return self._record.is_file() and self.python.is_file()

    @property
    def is_unfinished(self) -> bool:
        """Whether an installation was cancelled or failed, and can go on."""
        return self.environment.is_dir() and not self.is_complete

    @property
    def is_outdated(self) -> bool:
        """Whether it was made by a release with other versions."""
        return self.is_complete and self._read()["requirements"] != list(REQUIREMENTS)

    @property
    def size_bytes(self) -> int:
        """Disk use of a complete runtime."""
        return int(self._read()["size_bytes"])

    def set_complete(self) -> None:
        """Record the end of an installation."""
        record = {"requirements": REQUIREMENTS, "size_bytes": disk_use(self.environment)}
        write_atomically(self._record, (json.dumps(record, indent=1) + "\n").encode())

    def set_unfinished(self) -> None:
        """Before anything in the environment is changed."""
        self._record.unlink(missing_ok=True)

    @property
    def _record(self) -> Path:
        return self.folder / "complete.json"

    def _read(self) -> dict:
        return json.loads(self._record.read_text(encoding="utf-8"))


def disk_use(folder: Path) -> int:
    """Bytes of all files below a folder; links count as themselves."""
    return sum((Path(parent) / name).lstat().st_size for parent, _, names in os.walk(folder) for name in names)


def in_words(size_bytes: float) -> str:
    """A size for people: "5.9 GB", "38 MB"."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{max(1, round(size_bytes / 1e6))} MB"
