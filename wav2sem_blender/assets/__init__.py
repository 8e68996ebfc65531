# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths of the files that come with the package."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).resolve().parent
DEFAULT_MODEL = ASSETS / "models" / "default"
DEMO_SPEECH = ASSETS / "demo_speech.flac"
DEMO_HEAD = ASSETS / "demo_head.npz"
FLAME_REFERENCE = ASSETS / "flame_reference.json"
PRONUNCIATION = ASSETS / "pronunciation.npz"
TEMPLATE_FACE = ASSETS / "template_face.npz"
UPPER_FACE = ASSETS / "upper_face.npz"
