# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python environments that the user can install with a click, in the extension's folder: torch, the recogniser.

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

from ..errors import Text
from ..files import write_atomically

# The Pythons for which all packages have wheels.
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))
# The pip that fills an environment, if the one at hand is too old to tell its progress.
PIP = "pip==26.3"
# pip installs only files whose SHA-256 is here; tools/runtime_hashes.py writes them.
_HASHES = Path(__file__).with_name("requirements")
PIP_HASHES = _HASHES / "pip.txt"


@dataclass(frozen=True)
class Size:
    """Approximate size of the download and on disk; `content` is what the wheels are."""

    download_bytes: int
    disk_bytes: int
    content: Text


@dataclass(frozen=True, kw_only=True)
class Packages:
    """What an environment is made of.

    Attributes:
        name: That of its folder.
        title: Its name for the user.
        button: The label of the button that installs it.
        requirements: The versions of constraints.txt (a test compares them).
        proof: The field of the probe's report that is not empty if it works.
        sizes: Measured from PyPI: of Linux on x86-64, of macOS, of all others.
    """

    name: str
    title: Text
    button: Text
    requirements: tuple[str, ...]
    proof: str
    sizes: tuple[Size, Size, Size]

    @property
    def hashes(self) -> Path:
        """The requirements and all that they need, for every platform, with the hashes of their files, as pip reads."""
        return _HASHES / f"{self.name}.txt"

    def expected_size(self, has_index: bool = False) -> Size:
        """The size from PyPI for this machine; for another index, whose size is unknown, the smallest one."""
        if sys.platform == "linux" and platform.machine() == "x86_64" and not has_index:
            return self.sizes[0]
        return self.sizes[1 if sys.platform == "darwin" else 2]


_ALL_NEED = (
    'numpy==1.26.4; python_version < "3.13"',
    'numpy==2.5.5; python_version >= "3.13"',
    "soundfile==0.14.0",
    "soxr==1.1.0",
    "safetensors==0.8.0",
)
TORCH = Packages(
    name="torch_runtime",
    title=Text("Torch Runtime"),
    button=Text("Install Torch Runtime"),
    # torchaudio is only for training.
    requirements=(
        *_ALL_NEED,
        "torch==2.14.1",
        "transformers==5.23.0",
        "tokenizers==0.23.3",
        "huggingface_hub==2.4.0",
    ),
    proof="larger",
    sizes=(
        # With torch 2.14.1, which includes NVIDIA's libraries.
        Size(3_100_000_000, 5_900_000_000, Text("torch and transformers for NVIDIA GPUs (CUDA) and the CPU")),
        Size(400_000_000, 1_500_000_000, Text("torch and transformers for Apple GPUs (Metal)")),
        Size(400_000_000, 1_500_000_000, Text("torch and transformers for the CPU")),
    ),
)
RECOGNISER = Packages(
    name="recogniser_runtime",
    title=Text("Recogniser Runtime"),
    button=Text("Install Recogniser Runtime"),
    # With ONNX Runtime, which faster-whisper asks for, the bundled model runs in it, too: a batch needs both.
    requirements=(
        *_ALL_NEED,
        "faster-whisper==1.2.1",
        "ctranslate2==4.8.5",
        "av==18.1.0",
        'onnxruntime==1.28.0; sys_platform != "darwin" or platform_machine != "x86_64"',
        'onnxruntime==1.23.2; sys_platform == "darwin" and platform_machine == "x86_64"',
        "tokenizers==0.23.3",
        "huggingface_hub==2.4.0",
    ),
    proof="recogniser",
    sizes=(
        Size(130_000_000, 450_000_000, Text("faster-whisper for the CPU")),
        Size(60_000_000, 220_000_000, Text("faster-whisper for the CPU")),
        Size(90_000_000, 290_000_000, Text("faster-whisper for the CPU")),
    ),
)
ALL = {packages.name: packages for packages in (TORCH, RECOGNISER)}


@dataclass(frozen=True)
class Runtime:
    """An environment in a folder, installed or not."""

    folder: Path
    packages: Packages = TORCH

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
        return self.is_complete and self._read()["requirements"] != list(self.packages.requirements)

    @property
    def size_bytes(self) -> int:
        """Disk use of a complete runtime."""
        return int(self._read()["size_bytes"])

    def set_complete(self) -> None:
        """Record that the installation has finished."""
        record = {"requirements": self.packages.requirements, "size_bytes": disk_use(self.environment)}
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
