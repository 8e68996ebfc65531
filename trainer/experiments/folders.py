# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `export` and `import-official`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Export:
    """What becomes of a finished run.

    Attributes:
        onnx: write the files of the embedded engine, so that the model runs without torch.
        half_basis: store the basis in half precision: half its size, 0.02 mm at 40 mm.
        official: instead of a folder for the extension, write a file in the format of the released checkpoints
            (`vocaset.pth`, `biwi.pth`, or Wav2Sem's `model.pth.tar`).
    """

    onnx: bool = True
    half_basis: bool = True
    official: bool = False


@dataclass(frozen=True, kw_only=True)
class ImportOfficial:
    """Which released checkpoint the file is; `pipeline.IMPORT_KINDS` are the kinds."""

    kind: str


def bundled() -> Export:
    """For the extension: runs without torch."""
    return Export()


def torch() -> Export:
    """For the torch engine: exactly the trained weights, no ONNX files."""
    return Export(onnx=False, half_basis=False)


def official() -> Export:
    """For the official code: a state dict with the released names and shapes."""
    return Export(official=True)


def smoke() -> Export:
    """As `bundled`."""
    return bundled()


def faceformer_vocaset() -> ImportOfficial:
    """FaceFormer's vocaset.pth."""
    return ImportOfficial(kind="faceformer-vocaset")


def faceformer_biwi() -> ImportOfficial:
    """FaceFormer's biwi.pth."""
    return ImportOfficial(kind="faceformer-biwi")


def wav2sem() -> ImportOfficial:
    """Wav2Sem's model.pth.tar."""
    return ImportOfficial(kind="wav2sem")


def codetalker_wav2sem() -> ImportOfficial:
    """The Wav2Sem inside a CodeTalker stage-2 checkpoint."""
    return ImportOfficial(kind="codetalker-wav2sem")


EXPERIMENTS = {
    "export": (bundled, torch, official, smoke),
    "import-official": (faceformer_vocaset, faceformer_biwi, wav2sem, codetalker_wav2sem),
}
