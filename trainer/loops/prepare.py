# SPDX-License-Identifier: GPL-3.0-or-later
"""`prepare`: data that a later stage reads, made from corpora on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wav2sem_blender.errors import UserError

from ..speech.prepared import PreparePronunciation, PrepareSpeech


@dataclass(frozen=True, kw_only=True)
class PrepareBasis:
    """ICT-FaceKit's ARKit expressions on FLAME: OUT/basis.npz, and OUT/upper_face.npz for the add-on."""


@dataclass(frozen=True, kw_only=True)
class PrepareMotion:
    """ARKit curves fitted to tracked landmarks: OUT/motion; needs OUT/basis.npz."""


@dataclass(frozen=True, kw_only=True)
class PrepareDriven:
    """Phoneme-driven curves for all other aligned voices: OUT/driven; reads `speech` and `motion` below DATA."""

    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class PrepareVocaset:
    """VOCASET's four original files, as one npy and one wav per sequence: OUT."""


@dataclass(frozen=True, kw_only=True)
class PrepareBiwi:
    """BIWI's .vl frames, preprocessed as CodeTalker does, as one npy and one wav per sequence: OUT."""


def prepare(config: Any, data: Path, out: Path) -> None:
    """Make what the config names, in `out`."""
    match config:
        case PrepareBasis():
            from ..mesh_registration.basis import main as make_basis

            out.mkdir(parents=True, exist_ok=True)
            to = ["--out", str(out / "basis.npz"), "--upper-face", str(out / "upper_face.npz")]
            if make_basis(["--data", str(data), *to]):
                raise UserError("the basis was not made; see the message above")
        case PrepareSpeech():
            from ..speech.prepared import prepare_speech

            prepare_speech(data, out / "speech", config)
        case PreparePronunciation():
            from ..speech.pronunciation import prepare_pronunciation

            prepare_pronunciation(out, config)
        case PrepareMotion():
            from ..motion.curves import prepare_motion

            prepare_motion(data, out / "basis.npz", out / "motion")
        case PrepareDriven():
            from ..motion.phoneme_driven import prepare_driven

            prepare_driven(data, out / "driven", config.seed)
        case PrepareVocaset():
            from ..datasets.vocaset import export_vocaset

            export_vocaset(data, out)
        case PrepareBiwi():
            from ..datasets.biwi import export_biwi

            export_biwi(data, out)
