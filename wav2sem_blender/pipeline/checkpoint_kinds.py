# SPDX-License-Identifier: GPL-3.0-or-later
"""The published checkpoints that can be imported, for the command line and the add-on. Standard library only."""

from __future__ import annotations

from typing import NamedTuple


class CheckpointKind(NamedTuple):
    """A kind of file that `official.import_official` reads.

    Attributes:
        name: Its name on the command line.
        label: Its name in the add-on.
        description: Which file it is.
        host: Module of `hosts` that describes it in its `RELEASES`; empty for a Wav2Sem, which has no face.
    """

    name: str
    label: str
    description: str
    host: str = ""


CHECKPOINT_KINDS = (
    CheckpointKind("wav2sem", "Wav2Sem", "Wav2Sem's model.pth.tar: an encoder without a face"),
    CheckpointKind("faceformer-vocaset", "FaceFormer VOCASET", "FaceFormer's vocaset.pth", "faceformer"),
    CheckpointKind("faceformer-biwi", "FaceFormer BIWI", "FaceFormer's biwi.pth", "faceformer"),
    CheckpointKind(
        "imitator-vocaset", "Imitator VOCASET", "Imitator's checkpoint, also a personalised one", "imitator"
    ),
    CheckpointKind(
        "facediffuser-vocaset",
        "FaceDiffuser VOCASET",
        "FaceDiffuser's pretrained_vocaset.pth and VOCASET's templates.pkl",
        "facediffuser",
    ),
    CheckpointKind(
        "facediffuser-biwi",
        "FaceDiffuser BIWI",
        "FaceDiffuser's pretrained_BIWI.pth and BIWI's templates.pkl",
        "facediffuser",
    ),
    CheckpointKind("voca", "VOCA", "VOCA's variables as npz; it reads DeepSpeech's logits from a file", "voca"),
    CheckpointKind("voca-stand-in", "VOCA, Stand-in", "VOCA's variables as npz; it hears by the bundled model", "voca"),
    CheckpointKind("unitalker-arkit", "UniTalker ARKit", "UniTalker's .pt: 51 ARKit weights for any head", "unitalker"),
    CheckpointKind(
        "unitalker-emotalk", "UniTalker EmoTalk", "UniTalker's .pt: the 52 ARKit weights of EmoTalk's data", "unitalker"
    ),
    CheckpointKind("unitalker-vocaset", "UniTalker FLAME", "UniTalker's .pt and VOCASET's pca.npz", "unitalker"),
    CheckpointKind("unitalker-biwi", "UniTalker BIWI", "UniTalker's .pt and BIWI's pca.npz", "unitalker"),
    CheckpointKind("unitalker-flame", "UniTalker Parameters", "UniTalker's .pt and your FLAME as .npz", "unitalker"),
    CheckpointKind("lgldm-vocaset", "LG-LDM VOCASET", "LG-LDM's stage 2 for VOCASET, with its stage 1", "lgldm"),
    CheckpointKind("lgldm-biwi", "LG-LDM BIWI", "LG-LDM's stage 2 for BIWI, with its stage 1", "lgldm"),
    CheckpointKind("lgldm-mead", "LG-LDM MEAD", "LG-LDM's stage 2 for MEAD, with its stage 1", "lgldm"),
    CheckpointKind(
        "codetalker-vocaset", "CodeTalker VOCASET", "CodeTalker's stage 2 for VOCASET, with its stage 1", "codetalker"
    ),
    CheckpointKind(
        "codetalker-biwi", "CodeTalker BIWI", "CodeTalker's stage 2 for BIWI, with its stage 1", "codetalker"
    ),
    CheckpointKind(
        "probtalk3d-mead", "ProbTalk3D", "ProbTalk3D's stage-2 .ckpt and your FLAME file as .npz", "probtalk3d"
    ),
    CheckpointKind("lsf-mead", "LSF-Animation", "LSF-Animation's stage-2 .ckpt and your FLAME file as .npz", "lsf"),
    CheckpointKind("codetalker-wav2sem", "CodeTalker with Wav2Sem", "The Wav2Sem inside a CodeTalker stage-2 file"),
)
AUTO = "auto"
"""Instead of a kind: recognise the file by its keys."""
KIND_NAMES = tuple(kind.name for kind in CHECKPOINT_KINDS)
