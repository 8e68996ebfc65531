# SPDX-License-Identifier: GPL-3.0-or-later
"""What one run needs to know, as plain data: the operator, the command and the demo all fill this in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import bpy

from ...assets import DEFAULT_MODEL
from ...errors import UserError
from ...pipeline.upper_face import Settings as UpperFaceSettings
from ...worker import environment
from ...worker.environment import WorkerEnvironment
from .. import addon_preferences
from ..scene.head_sway import NOTHING_SWAYS, SwayTarget

# That part has a record of its own.
_OF_THE_UPPER_FACE = ("upper_face", "upper_face_only", "sway")


@dataclass(frozen=True, kw_only=True)
class AnimateSettings:
    """One run of `wav2sem.animate`.

    Attributes:
        filepath: Audio or film file; or else `sound` or `strip`.
        sound: Name of a sound data-block.
        strip: Name of a sound strip in the scene's sequencer.
        object_name: The mesh; empty for the active object.
        model: "default", a folder, or the name of a folder in the preferences' models folder.
        engine: auto, onnx or torch.
        device: auto, cpu, cuda, mps or xpu.
        style: Name of the speaking style, or its index in digits; empty for the first one.
        semantic_strength: 0 switches the semantic features off, 1 is as trained.
        strength: Factor for all curves.
        smoothing_s: Width of the smoothing; closed lips stay closed.
        delay_s: How much later than the audio the face moves; below 0 it leads.
        start_frame: Scene frame of the audio's first moment.
        range_start_s: Where the part of the audio that is spoken begins, as it plays in the scene.
        range_end_s: Where it ends; 0 for the audio's end.
        upper_face: How lively the upper face is; None leaves it alone.
        upper_face_only: Do not move the mouth.
        sway: What the head's sway moves.
    """

    filepath: str = ""
    sound: str = ""
    strip: str = ""
    object_name: str = ""
    model: str = "default"
    engine: str = "auto"
    device: str = "auto"
    style: str = ""
    semantic_strength: float = 1.0
    strength: float = 1.0
    smoothing_s: float = 0.0
    delay_s: float = 0.0
    start_frame: int = 1
    range_start_s: float = 0.0
    range_end_s: float = 0.0
    upper_face: UpperFaceSettings | None = None
    upper_face_only: bool = False
    sway: SwayTarget = NOTHING_SWAYS

    @property
    def begins_s(self) -> float:
        """When the face begins, counted from the audio's first moment."""
        return self.range_start_s + self.delay_s

    def for_the_record(self) -> dict[str, object]:
        """As stored on the Action."""
        given = {name: value for name, value in asdict(self).items() if value != ""}
        return {name: value for name, value in given.items() if name not in _OF_THE_UPPER_FACE}


def resolve_model(context: bpy.types.Context, model: str) -> str:
    """The folder behind a model's name.

    Raises:
        ValueError: There is no such model; the message lists those of the models folder.
    """
    if model in ("", "default"):
        return "default"
    folder = Path(bpy.path.abspath(model)).absolute()
    if folder.is_dir():
        return str(folder)
    models_folder = addon_preferences.get(context).models_folder
    if models_folder:
        folder = Path(bpy.path.abspath(models_folder)).absolute() / model
        if folder.is_dir():
            return str(folder)
    names = ", ".join(model_names(context))
    raise UserError(
        'There is no model "{model}". Known are: {names}; or give the path of a model folder.',
        model=model,
        names=names,
    )


def model_names(context: bpy.types.Context) -> list[str]:
    """The bundled model and those in the models folder of the preferences."""
    folder = addon_preferences.get(context).models_folder
    if not folder:
        return ["default"]
    configs = Path(bpy.path.abspath(folder)).glob("*/config.json")
    return ["default", *sorted(config.parent.name for config in configs)]


def style_names(context: bpy.types.Context, model: str) -> list[str]:
    """The speaking styles of a model, as its config.json names them; none where that cannot be read."""
    try:
        folder = resolve_model(context, model)
        config = (DEFAULT_MODEL if folder == "default" else Path(folder)) / "config.json"
        return [str(name) for name in json.loads(config.read_text(encoding="utf-8"))["model"]["styles"]]
    except (OSError, ValueError, KeyError, TypeError):  # only suggestions; a run says what is wrong with the model
        return []


def worker_environment(context: bpy.types.Context) -> WorkerEnvironment:
    """The Python that the preferences name, otherwise Blender's own.

    Raises:
        OSError: It does not exist.
    """
    python = addon_preferences.get(context).torch_python
    return environment.from_python(bpy.path.abspath(python)) if python else environment.embedded()
