# SPDX-License-Identifier: GPL-3.0-or-later
"""The face models ("hosts") that Wav2Sem plugs into: one module each, imported when it is used.

A module holds its host's settings, frame grid, decoding and released key names. Its network and its loss are torch
modules in `nn`, imported by `Host.network`. `protocol.py` says what a host must offer.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ...errors import UserError
from .protocol import Host

HOSTS = {
    "codetalker": "CodeTalker",
    "facediffuser": "FaceDiffuser",
    "faceformer": "FaceFormer",
    "faceformer_channels": "FaceFormerChannels",
    "imitator": "Imitator",
    "joint_audio_text": "JointAudioText",
    "lgldm": "LgLdm",
    "lsf": "LSF",
    "probtalk3d": "ProbTalk3D",
    "unitalker": "UniTalker",
    "voca": "Voca",
}
"""Kind in config.json, which is the module's name -> the class of its settings."""


def host_module(kind: str) -> ModuleType:
    """The module of a host."""
    return importlib.import_module(f".{kind}", __package__)


def host_class(kind: object) -> type[Host]:
    """The settings' class of a host.

    Raises:
        UserError: There is no such host.
    """
    if not isinstance(kind, str) or kind not in HOSTS:
        raise UserError("unknown host kind {kind!r}; this release knows {known}", kind=kind, known=", ".join(HOSTS))
    return getattr(host_module(kind), HOSTS[kind])
