# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the files that come with the package lie."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
DEFAULT_MODEL = FOLDER / "models" / "default"
DEMO_SPEECH = FOLDER / "demo_speech.flac"
DEMO_HEAD = FOLDER / "demo_head.npz"
FLAME_REFERENCE = FOLDER / "flame_reference.json"
TEMPLATE_FACE = FOLDER / "template_face.npz"
UPPER_FACE = FOLDER / "upper_face.npz"
