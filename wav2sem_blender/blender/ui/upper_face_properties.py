# SPDX-License-Identifier: GPL-3.0-or-later
"""The Upper Face panel's settings, stored with the scene."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import bpy
from bpy.props import BoolProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from ...pipeline.upper_face import MAX_AMOUNT, MAX_BLINKS_PER_MINUTE, Settings
from ..scene import upper_face_strips
from ..scene.head_sway import NOTHING_SWAYS, SwayTarget

AMOUNTS = ("seed", "blinks_per_minute", "brows", "eye_darts", "head_sway")


def _switch(owner: Any, context: bpy.types.Context) -> None:
    upper_face_strips.switch_all(context.scene, owner.enabled)


def _suggest_bones(owner: Any, _context: bpy.types.Context, _text: str) -> Iterable[str]:
    armature = owner.sway_object
    return [bone.name for bone in armature.pose.bones] if armature is not None and armature.pose else []


def _amount(name: str, description: str) -> Any:
    return lambda **options: FloatProperty(
        name=name, description=description, default=1.0, min=0.0, max=MAX_AMOUNT, soft_max=2.0, **options
    )


# The panel's settings and the operator share these, so that names, limits and tooltips agree.
def seed_property(**options: Any) -> object:
    """Seed of the performance."""
    return IntProperty(
        name="Seed", description="Each number gives another performance of the same speech", min=0, **options
    )


def blinks_property(**options: Any) -> object:
    """How often the eyes blink."""
    return FloatProperty(
        name="Blink Rate",
        description="Blinks per minute while speaking. People blink 15 to 26 times; 0 turns blinks off",
        default=Settings.blinks_per_minute,
        min=0.0,
        max=MAX_BLINKS_PER_MINUTE,
        soft_max=40.0,
        **options,
    )


brows_property = _amount("Brows", "Amount of brow motion on stressed syllables; 0 for none")
eye_darts_property = _amount("Eye Darts", "Amount of small eye movements; 0 for none")
head_sway_property = _amount("Head Sway", "Amount of head motion; 0 for none")


class WAV2SEM_PG_upper_face(bpy.types.PropertyGroup):
    """Settings of the Upper Face panel."""

    enabled: BoolProperty(  # type: ignore[valid-type]
        name="Upper Face",
        description="Add blinks, brow motion and eye darts to every animation. Disabling it mutes those in this scene",
        default=True,
        update=_switch,
    )
    seed: seed_property()  # type: ignore[valid-type]
    blinks_per_minute: blinks_property()  # type: ignore[valid-type]
    brows: brows_property()  # type: ignore[valid-type]
    eye_darts: eye_darts_property()  # type: ignore[valid-type]
    head_sway: head_sway_property()  # type: ignore[valid-type]
    sway_object: PointerProperty(  # type: ignore[valid-type]
        name="Sway",
        description="Object or armature that sways with the head. The head stays still if empty",
        type=bpy.types.Object,
    )
    sway_bone: StringProperty(  # type: ignore[valid-type]
        name="Bone",
        description="Bone of the armature that sways. The whole armature if empty",
        search=_suggest_bones,
        search_options={"SUGGESTION"},
    )


def panel_settings(scene: bpy.types.Scene) -> tuple[Settings, SwayTarget]:
    """The panel's settings or their defaults; stores nothing with the scene."""
    if not scene.is_property_set("wav2sem_upper_face"):
        return Settings(), NOTHING_SWAYS
    panel = scene.wav2sem_upper_face
    sway = NOTHING_SWAYS
    if panel.sway_object is not None:
        is_armature = panel.sway_object.type == "ARMATURE"
        sway = SwayTarget(object_name=panel.sway_object.name, bone_name=panel.sway_bone if is_armature else "")
    return Settings(**{name: getattr(panel, name) for name in AMOUNTS}), sway


def is_enabled(scene: bpy.types.Scene, by_hand: bool) -> bool:
    """Whether a run animates the upper face too.

    Args:
        scene: Its settings decide once they were set; nothing is stored with it.
        by_hand: What holds before that: on for a click, off for a script.
    """
    panel = scene.wav2sem_upper_face if scene.is_property_set("wav2sem_upper_face") else None
    if panel is None or not panel.is_property_set("enabled"):
        return by_hand
    return bool(panel.enabled)


CLASSES = (WAV2SEM_PG_upper_face,)


def register() -> None:
    """Add the settings to every scene."""
    bpy.types.Scene.wav2sem_upper_face = PointerProperty(type=WAV2SEM_PG_upper_face)


def unregister() -> None:
    """Remove them."""
    del bpy.types.Scene.wav2sem_upper_face
