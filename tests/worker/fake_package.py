# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of the package with a fake animator, for the tests of the worker and of Blender's side."""

import shutil
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1] / "wav2sem_blender"


def make_fake_package(folder: Path) -> Path:
    """Create it in `folder`. As an extension's folder may be, it is not named `wav2sem_blender`."""
    package = folder / "some_other_name"
    (package / "pipeline").mkdir(parents=True)
    for module in PACKAGE.glob("*.py"):
        shutil.copy(module, package)
    shutil.copytree(PACKAGE / "worker", package / "worker", ignore=shutil.ignore_patterns("__pycache__"))
    for module in (PACKAGE / "pipeline").glob("*.py"):
        shutil.copy(module, package / "pipeline")
    shutil.copytree(PACKAGE / "pipeline" / "words", package / "pipeline" / "words")
    for name in ("prosody.py", "visemes.py"):
        shutil.copy(PACKAGE / "pipeline" / name, package / "pipeline" / f"true_{name}")
    for name in ("infer.py", "audio.py", "prosody.py", "visemes.py"):
        shutil.copy(HERE / f"fake_{name}", package / "pipeline" / name)
    return package
