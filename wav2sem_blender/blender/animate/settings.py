# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of one run, as plain data that the operator, the command and the demo fill in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import bpy

from ...assets import DEFAULT_MODEL
from ...errors import UserError
from ...json_file import read_json
from ...pipeline.upper_face import Settings as UpperFaceSettings
from ...worker import environment
from ...worker.environment import WorkerEnvironment
from .. import addon_preferences
from ..scene.head_sway import NOTHING_SWAYS, SwayTarget
from ..tasks.asked import check_asked

# The upper face's action records these.
_OF_THE_UPPER_FACE = ("upper_face", "upper_face_only", "sway")
_OF_THE_SESSION = ("sound_uid", "object_uid")


@dataclass(frozen=True, kw_only=True)
class AnimateSettings:
    """One run of `wav2sem.animate`.

    Attributes:
        filepath: Audio or film file; empty if `sound` or `strip` is given.
        sound: Name of a sound data-block.
        sound_uid: Its session_uid, since a linked one may have the name of another; 0 to go by the name.
        strip: Name of a sound strip in the scene's sequencer.
        object_name: The mesh; empty for the active object.
        object_uid: As `sound_uid`.
        model: "default", a folder, or the name of a folder in the preferences' models folder.
        engine: auto, onnx or torch.
        device: auto, cpu, cuda, mps or xpu.
        style: Name of the speaking style, or its index in digits; empty for the first one.
        articulation: From -1, mumbled, to 1, over-articulated, where the model has such styles.
        semantic_strength: 0 switches the semantic features off, 1 is as trained.
        strength: Factor for all curves.
        smoothing_s: Width of the smoothing; closed lips stay closed.
        tongue: Move the tongue by rule, where the face has keys for it.
        delay_s: Delay of the face after the audio; below 0 it leads.
        start_frame: Scene frame at which the audio begins.
        range_start_s: Start of the part of the audio that is spoken, in seconds as the scene plays it.
        range_end_s: End of that part; 0 for the end of the audio.
        transcript: What is said; empty if nobody says.
        transcript_file: The same as the path of a file; at most one of the two is given.
        language: Of the transcript, such as "de"; empty to guess it.
        track_file: Path of a track that the mouth follows, in place of a transcript.
        upper_face: How lively the upper face is; None to leave it alone.
        upper_face_only: Leave the mouth alone.
        sway: What the sway of the head moves.
    """

    filepath: str = ""
    sound: str = ""
    sound_uid: int = 0
    strip: str = ""
    object_name: str = ""
    object_uid: int = 0
    model: str = "default"
    engine: str = "auto"
    device: str = "auto"
    style: str = ""
    articulation: float = 0.0
    semantic_strength: float = 1.0
    strength: float = 1.0
    smoothing_s: float = 0.0
    tongue: bool = True
    delay_s: float = 0.0
    start_frame: int = 1
    range_start_s: float = 0.0
    range_end_s: float = 0.0
    transcript: str = ""
    transcript_file: str = ""
    language: str = ""
    track_file: str = ""
    upper_face: UpperFaceSettings | None = None
    upper_face_only: bool = False
    sway: SwayTarget = NOTHING_SWAYS

    @property
    def begins_s(self) -> float:
        """When the face begins to move, in seconds from the start of the audio."""
        return self.range_start_s + self.delay_s

    def for_the_record(self) -> dict[str, object]:
        """As stored on the Action."""
        given = {name: value for name, value in asdict(self).items() if value != ""}
        return {name: value for name, value in given.items() if name not in (*_OF_THE_UPPER_FACE, *_OF_THE_SESSION)}


def resolve_model(context: bpy.types.Context, model: str) -> str:
    """The folder of a model.

    Raises:
        UserError: There is no such model; the message lists those of the models folder.
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
    """The bundled model and those in the models folder."""
    folder = addon_preferences.get(context).models_folder
    if not folder:
        return ["default"]
    configs = Path(bpy.path.abspath(folder)).glob("*/config.json")
    return ["default", *sorted(config.parent.name for config in configs)]


def style_names(context: bpy.types.Context, model: str) -> list[str]:
    """The first speaking style of a model's config.json, then those that Articulation does not reach.

    None if it cannot be read.
    """
    try:
        description = _description(context, model)
        first, *others = map(str, description["styles"])
        return [first, *(name for name in others if name not in (description.get("articulation") or ()))]
    except (OSError, ValueError, KeyError, TypeError):  # these are only suggestions; a run reports what is wrong
        return []


def articulation_problem(context: bpy.types.Context, model: str) -> str:
    """Why Articulation has no effect with a model; empty when it has, or when the model cannot be read."""
    return "" if _may_have(context, model, "articulation") else "This model has no mumbled and clear styles to mix"


def tongue_problem(context: bpy.types.Context, model: str) -> str:
    """Why Tongue has no effect with a model; empty when it has, or when the model cannot be read."""
    return "" if _may_have(context, model, "phones") else "This model does not tell which sounds it hears"


def steering_problem(context: bpy.types.Context, model: str) -> str:
    """Why the mouth cannot follow edited words with a model; empty when it can, or when the model cannot be read."""
    return "" if _may_have(context, model, "steerable") else "This model cannot follow edited words and sounds"


def transcript_problem(context: bpy.types.Context, model: str) -> str:
    """Why a transcript has no effect with a model; empty when it has, or when the model cannot be read."""
    return tongue_problem(context, model)


def _may_have(context: bpy.types.Context, model: str, key: str) -> bool:
    """Whether a model's config.json has something under `key`; True if it cannot be read, which a run reports."""
    try:
        return bool(_description(context, model).get(key))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True


def _description(context: bpy.types.Context, model: str) -> dict[str, Any]:
    """What a model's config.json says about it. Panels ask at every redraw, so it is read when it has changed."""
    config = model_config_file(context, model)
    return read_description(config, config.stat().st_mtime_ns)


def model_config_file(context: bpy.types.Context, model: str) -> Path:
    """A model's config.json, for a panel; UserError as `resolve_model`, or if nobody has asked for the model."""
    if model not in ("", "default"):
        check_asked(model)
    folder = resolve_model(context, model)
    return (DEFAULT_MODEL if folder == "default" else Path(folder)) / "config.json"


@lru_cache(maxsize=16)
def read_description(config: Path, _mtime_ns: int) -> dict[str, Any]:
    """What a config.json says about its model; the time says whether it must be read again."""
    description = read_json(config)["model"]
    if not isinstance(description, dict):
        raise TypeError(type(description))
    return description


def worker_environment(context: bpy.types.Context) -> WorkerEnvironment:
    """The Python of the preferences, or Blender's own.

    Raises:
        UserError: It does not exist or is not a program.
    """
    python = addon_preferences.get(context).torch_python
    return environment.from_python(bpy.path.abspath(python)) if python else environment.embedded()
