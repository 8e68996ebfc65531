# SPDX-License-Identifier: GPL-3.0-or-later
"""A stranger's .blend holds anything under our properties' names: panels draw, and clicks work or say why not.

`WAV2SEM_FUZZ_PROPERTIES` cases are tried, each with one to three properties changed; 10,000 take minutes.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
import random
import traceback
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender import compat, registration
from wav2sem_blender.blender.animate import update_upper_face
from wav2sem_blender.blender.scene import (
    actions,
    checks,
    original_state,
    reduction,
    speech_track,
    takes,
    upper_face,
    upper_face_strips,
)
from wav2sem_blender.blender.ui import result
from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.prosody import Prosody
from wav2sem_blender.pipeline.upper_face import Settings
from wav2sem_blender.pipeline.words.track import Direction, Phone, Track, Word

from ..fuzz import mutate  # noqa: TID252
from .applied import apply_motion  # noqa: TID252

N_CASES = int(os.environ.get("WAV2SEM_FUZZ_PROPERTIES", "120"))
PANELS = [cls for cls in registration.CLASSES if issubclass(cls, bpy.types.Panel) and hasattr(cls, "draw")]
OPERATORS = [cls for cls in registration.CLASSES if issubclass(cls, bpy.types.Operator)]
LEFT_OUT = ("presets",)
VALUES: tuple[Any, ...] = (
    *(
        0,
        1,
        -7,
        2**31 - 1,
        True,
        0.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "{}",
        "[]",
        "null",
        "[1]",
        '{"a": 1}',
        "NaN",
    ),
    *(
        '{"rest": []}',
        '{"settings": 3}',
        "[" * 2000,
        '"\\ud800"',
        "\n\n",
        "jawOpen\njawOpen",
        b"\x00\xff",
        b"",
        "y" * 5000,
    ),
    *([1.0, 2.0], [1, 2, 3, 4, 5, 6, 7], ["a", "b"], {"a": 1}, {"jawOpen": b"abc"}, {}, [{"a": 2}], "OBJECT"),
)
# The numbers that an enum of RNA does not have, or that no slider gives.
SETTINGS: tuple[Any, ...] = (
    0,
    -1,
    1,
    7,
    99,
    2**31 - 1,
    -(2**31),
    1e30,
    float("nan"),
    float("inf"),
    -1.0,
    "",
    "gone",
    "\\\\host\\x",
)


class Layout:
    """Draws nothing; what it is told to draw must exist."""

    enabled = active = alert = True
    operator_context = ""

    def prop(self, owner, name, **_options):
        assert name in owner.bl_rna.properties
        getattr(owner, name)

    def label(self, text="", **_options):
        assert isinstance(text, str)

    def operator(self, *_args, **_options):
        return SimpleNamespace()

    def progress(self, **_options):
        pass

    def __getattr__(self, _name):
        return lambda *_args, **_options: self


class Stand:
    """Stands for an instance of a panel or list, which only Blender can make."""

    layout_type, filter_name, bitflag_filter_item, use_filter_invert = "DEFAULT", "", 1 << 30, False

    def __init__(self, cls: type) -> None:
        self.layout, self._cls = Layout(), cls

    def __getattr__(self, name: str) -> Any:
        found = inspect.getattr_static(self._cls, name)
        return found.__get__(self, self._cls) if hasattr(found, "__get__") else found


_LEVEL = np.zeros(400, dtype=np.float32)
SILENCE = Prosody(level_db_P=_LEVEL, pitch_st_P=_LEVEL, pauses_N2=np.zeros((0, 2), dtype=int), duration_s=4.0)


def build() -> bpy.types.Object:
    """A face that has spoken, with reduced keys, a take that is kept, an upper face, landmarks and a mapping."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    mesh = bpy.data.meshes.new("Head")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
    head = bpy.data.objects.new("Head", mesh)
    scene = bpy.context.scene
    scene.collection.objects.link(head)
    bpy.context.view_layer.objects.active = head
    head.shape_key_add(name="Basis")
    keys = {"jawOpen": (0, 0, -1), "mouthPucker": (0, -1, 0), "eyeBlinkLeft": (1, 0, 1), "browInnerUp": (1, 1, 0)}
    for name, place in keys.items():
        head.shape_key_add(name=name, from_mix=False).data[0].co = place
        head.data.shape_keys.key_blocks[name].value = 0.0
    settings = {"filepath": "/nowhere/talk.wav", "strength": 1.0}
    for audio in ("one.wav", "two.wav"):
        weights = 0.2 + 0.1 * np.sin(np.arange(60, dtype=np.float32)[:, None] / (3, 4))
        info = {"audio": audio, "audio_sha256": audio * 4}
        motion = Motion(weights_TK=weights, channels=("jawOpen", "mouthPucker"), fps=30.0, info=info)
        apply_motion(bpy.context, head, motion, settings=settings)
    upper_face.apply_upper_face(bpy.context, head, SILENCE, Settings(), name="two.wav", recording=settings)
    scene.wav2sem.target = head
    assert bpy.ops.wav2sem.reduce_keys() == {"FINISHED"}
    row = head.wav2sem_mapping.add()
    row.channel, row.key = "jawOpen", "jawOpen"
    empty = bpy.data.objects.new("Mark", None)
    empty.parent = head
    empty["wav2sem_landmark"] = "chin"
    scene.collection.objects.link(empty)
    head["wav2sem_demo_head"] = True
    scene.wav2sem.target = head
    scene.wav2sem_upper_face.blinks = 1.0
    said = Track(words=(Word("hi", 0.5, 1.0),), phones=(Phone("HH", 0.5, 0.7), Phone("AY", 0.7, 1.0)))
    take = next(take for take in takes.of_face(head) if take.is_active)
    speech_track.remember(
        take.action, said, speech_track.Place(frame=1, action_frame=1, action_rate_hz=24, duration_s=2)
    )
    speech_track.show(bpy.context, take.action)
    strip = speech_track.add_directions(take.action, (10, 20))
    strip.wav2sem_rest = True
    for frame, amount in ((10, 0.0), (20, 1.0)):
        strip.wav2sem_brows = amount
        strip.keyframe_insert("wav2sem_brows", frame=frame)
    strip.select, scene.sequence_editor.active_strip = True, strip
    return head


def places(head: bpy.types.Object) -> list[tuple[Any, str]]:
    """Every block and name under which the add-on reads a custom property."""
    keys, found = head.data.shape_keys, []
    for action in bpy.data.actions:
        found += [
            (action, name) for name in ("wav2sem_audio", "wav2sem_model", "wav2sem_weights_sha256", "wav2sem_dense")
        ]
        names = (actions.AUDIO_HASH, actions.CURVES, actions.OWNER, actions.SOUND, actions.SETTINGS, actions.REST)
        found += [(action, name) for name in (*names, upper_face_strips.MARK, reduction._DENSE, reduction._WRITTEN)]
        found += [(action, reduction._OUTCOME)]
    names = (original_state.BEFORE, original_state.IDENTITY, "wav2sem_transferred", "wav2sem_jaw_carrier")
    found += [(keys, name) for name in (*names, checks.OWN_KEYS_PROPERTY, checks.OWN_BASIS_PROPERTY)]
    track = (speech_track.TRACK, speech_track.PLACE, speech_track.IDENTITY)
    found += [(action, name) for action in bpy.data.actions if speech_track.TRACK in action for name in track]
    strips = compat.all_strips(bpy.context.scene)
    found += [(strip, name) for strip in strips for name in (speech_track.TAKE, speech_track.ITEM)]
    found += [(empty, "wav2sem_landmark") for empty in head.children]
    found += [(head, "wav2sem_demo_head"), (head.data, checks.OWN_KEYS_PROPERTY)]
    return found


def settings_of(head: bpy.types.Object) -> list[tuple[Any, str]]:
    """The stored values behind our own settings, whose type and range a stranger chooses too."""
    found = []
    directed = [strip for strip in compat.all_strips(bpy.context.scene) if strip.get(speech_track.ITEM)]
    for owner in (bpy.context.scene, head, *directed):
        stored = owner.bl_system_properties_get(do_create=True) if hasattr(owner, "bl_system_properties_get") else owner
        for name in list(stored.keys()):
            if name.startswith("wav2sem"):
                found.append((stored, name))
                if hasattr(stored[name], "keys"):
                    found += [(stored[name], inner) for inner in stored[name].keys()]  # noqa: SIM118
                elif isinstance(stored[name], list):
                    found += [(row, inner) for row in stored[name] for inner in row.keys()]  # noqa: SIM118
    panel = next(stored[name] for stored, name in found if name == "wav2sem")
    names = [setting.identifier for setting in bpy.context.scene.wav2sem.bl_rna.properties]
    found += [(panel, name) for name in names if name not in ("rna_type", "name")]
    return found


def change(head: bpy.types.Object, chance: random.Random) -> str:
    """Put something in the place of one property; returns what."""
    if chance.random() < 0.3:
        owner, name = chance.choice(settings_of(head))
        value: Any = chance.choice(SETTINGS)
    else:
        owner, name = chance.choice(places(head))
        value = chance.choice(VALUES)
        known = owner.get(name)
        if isinstance(known, str) and known[:1] in "{[" and known and chance.random() < 0.6:
            with suppress(ValueError, RecursionError):  # it is one of these values already
                value = mutate.damaged_json(json.loads(known), chance).decode("utf-8", errors="replace")
    if value == "OBJECT":
        value = head
    try:
        owner[name] = copy.deepcopy(value) if isinstance(value, list | dict) else value
    except (TypeError, ValueError, OverflowError, KeyError):
        return ""  # Blender holds no such value there
    return f"{getattr(owner, 'name', 'settings')}[{name}] = {value!r:.120}"


def draw_all() -> None:
    for panel in PANELS:
        if any(part in panel.__name__.lower() or part in panel.__name__ for part in LEFT_OUT):
            continue
        if hasattr(panel, "poll") and not panel.poll(bpy.context):
            continue
        made = Stand(panel)
        for name in ("draw_header", "draw_header_preset", "draw"):
            if name in vars(panel):
                getattr(panel, name)(made, bpy.context)
    listing = result.WAV2SEM_UL_takes
    for take_action in bpy.data.actions:
        listing.draw_item(Stand(listing), bpy.context, Layout(), bpy.data, take_action, 0, None, "")


CLICKS = (
    *(("make_active", {}), ("mute_take", {}), ("push_to_nla", {}), ("rebake", {}), ("reduce_keys", {})),
    *(("remove_upper_face", {}), ("guess_mapping", {}), ("add_mapping_row", {}), ("remove_mapping_row", {})),
    *(
        ("clear_mapping", {}),
        ("remove_landmarks", {}),
        ("create_speech_keys", {}),
        ("remove_take", {"with_keys": True}),
    ),
    *(("drive_jaw_bone", {}), ("animate", {}), ("add_upper_face", {}), ("play_speech", {})),
    *(("show_words", {}), ("update_mouth", {}), ("copy_directions", {}), ("hide_words", {})),
    *(("add_directions", {}), ("direct_upper_face", {})),
)


def click(name: str, options: dict[str, Any]) -> None:
    """Run an operator's `execute`; it may refuse with a sentence, which Blender raises as RuntimeError."""
    if name == "direct_upper_face":
        direct_upper_face()
        return
    operator = getattr(bpy.ops.wav2sem, name)
    try:
        if operator.poll():
            operator(**options)
    except RuntimeError as error:
        said = str(error)
        assert "Traceback" not in said and "Internal error" not in said, " / ".join(said.split("\n"))[-400:]


def direct_upper_face() -> None:
    """What Update Mouth does to brows and head, without a model for the mouth."""
    head = bpy.data.objects["Head"]
    for take in [take for take in takes.of_face(head) if not take.is_upper_face]:
        try:
            if (upper := update_upper_face.of_take(head, take)) is not None:
                update_upper_face.remember(upper.action, SILENCE)
            if (change := update_upper_face.planned(head, take, (Direction("brows", 0.5, 1.0, 1.0),))) is not None:
                update_upper_face.apply(head, change, replaces=False)
        except UserError:
            pass


def survive(number: int) -> None:
    chance = random.Random(number)
    head = build()
    done = [change(head, chance) for _ in range(chance.choice((1, 1, 2, 3)))]
    try:
        draw_all()
        for operator in OPERATORS:
            if hasattr(operator, "disabled_reason"):
                assert isinstance(operator.disabled_reason(bpy.context), str)
        for name, options in chance.sample(CLICKS, 4):
            bpy.context.window_manager.wav2sem_take_index = chance.randrange(len(bpy.data.actions) or 1)
            click(name, options)
            draw_all()
    except Exception as error:
        raise AssertionError(f"case {number}: {done}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("first", range(0, N_CASES, 20))
def test_draws_and_clicks(first: int) -> None:
    failed = []
    for number in range(first, min(first + 20, N_CASES)):
        try:
            survive(number)
        except AssertionError as error:
            failed.append(f"{error}{_at(error)}")
    assert not failed, "\n".join(failed)


def _at(error: BaseException) -> str:
    cause = error.__cause__
    frames = traceback.extract_tb(cause.__traceback__ if cause else error.__traceback__)
    return " at " + ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-3:])


def test_the_scene_of_the_cases_is_whole() -> None:
    """Unchanged it draws, has every property that is changed, and its takes can be removed."""
    head = build()
    draw_all()
    stored = {name for owner, name in places(head) if name in owner}
    assert {actions.AUDIO_HASH, actions.CURVES, actions.OWNER, actions.SETTINGS, upper_face_strips.MARK} <= stored
    assert {original_state.BEFORE, original_state.IDENTITY} <= stored
    assert {speech_track.TRACK, speech_track.PLACE, speech_track.TAKE, speech_track.ITEM} <= stored
    assert len(takes.of_face(head)) == 3 and math.isfinite(head.data.shape_keys.key_blocks["jawOpen"].value)
    assert len(settings_of(head)) > 20
    take = next(take for take in takes.of_face(head) if take.is_active and not take.is_upper_face)
    update_upper_face.remember(update_upper_face.of_take(head, take).action, SILENCE)
    assert update_upper_face.planned(head, take, (Direction("brows", 0.5, 1.0, 1.0),)).curves
    assert speech_track.read(take.action).settled.track().directions[0].curve
