# SPDX-License-Identifier: GPL-3.0-or-later
"""What the animator wants of a word or a span, as properties of its text strip, and the keys of these properties.

Each is a property of the strip itself: Blender cannot insert keys of a group's from a panel. The scene's action has the
curves, in frames of the sequencer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isclose
from typing import Any

import bpy
import numpy as np
from bpy.props import BoolProperty, FloatProperty

from ...pipeline.key_reduction import reduce_keys
from ...pipeline.motion import Motion
from ...pipeline.words.directions import AMOUNTS, SWITCHES, called
from .. import compat
from ..translations import CONTEXT
from . import custom_properties
from .track_edits import Wanted

# Custom property of a strip of ours: what it said when it was written. The tier of those that show directions alone.
ITEM, TIER = "wav2sem_item", "directions"
# Label of a strip that wants nothing yet.
NEUTRAL = "neutral"
_PREFIX = "wav2sem_"
_SAME = 1e-4
_KEYED_TOLERANCE = 1e-3
_PATH = re.compile(r'sequence_editor\.\w+\["(.*)"\]\.' + _PREFIX + r"(\w+)", re.DOTALL)

Directions = tuple[Wanted, ...]
# F-curves by the strip's name and the direction's.
Keys = dict[tuple[str, str], Any]


def attribute(name: str) -> str:
    """The property of a direction."""
    return _PREFIX + name


def keys_of(scene: bpy.types.Scene) -> Keys:
    """The curves by which a scene animates directions."""
    return {place: curve for place, _, curve in _curves(scene) if not curve.mute}


def read(strip: Any, keys: Keys) -> Directions:
    """What a strip wants. A keyed amount is sampled at each frame from its first to the one after its last."""
    found = []
    for name, amount in AMOUNTS.items():
        curve = keys.get((strip.name, name)) if keys else None
        values = _sampled(curve, strip, amount.least, amount.most) if curve is not None else ()
        value = values[0] if values else round(getattr(strip, attribute(name)), 4)
        if values and max(values) - min(values) > _SAME:
            found.append(Wanted(name, None, values))
        elif not isclose(value, amount.neutral, abs_tol=_SAME):
            found.append(Wanted(name, value))
    return (*found, *(Wanted(name) for name in SWITCHES if getattr(strip, attribute(name))))


def label_of(directions: Directions) -> str:
    """What a strip of directions shows, in the words of the markup; a keyed amount has a ~ instead of its value."""
    return ", ".join(f"{d.name} ~" if d.curve else called(d.name, d.value) for d in directions) or NEUTRAL


def write(scene: bpy.types.Scene, strip: Any, directions: Directions) -> None:
    """Let a strip want these, and nothing else."""
    given = {wanted.name: wanted for wanted in directions}
    for place, bag, curve in list(_curves(scene)):
        if place[0] == strip.name:
            bag.fcurves.remove(curve)
    for name, amount in AMOUNTS.items():
        wanted = given.get(name, Wanted(name))
        value = wanted.curve[0] if wanted.curve else amount.neutral if wanted.value is None else wanted.value
        if abs(getattr(strip, attribute(name)) - value) > _SAME:
            setattr(strip, attribute(name), value)
        if wanted.curve:
            _insert_keys(scene, strip, wanted)
    for name in SWITCHES:
        if getattr(strip, attribute(name)) != (name in given):
            setattr(strip, attribute(name), name in given)


def hand_over(scene: bpy.types.Scene, old: Any, new: Any) -> None:
    """Let another strip want what one wants, with its keys."""
    for name in (*AMOUNTS, *SWITCHES):
        setattr(new, attribute(name), getattr(old, attribute(name)))
    path = f'["{bpy.utils.escape_identifier(new.name)}"]'
    for (strip, name), _, curve in list(_curves(scene)):
        if strip == old.name:
            curve.data_path = curve.data_path[: curve.data_path.index("[")] + f"{path}.{attribute(name)}"


def _curves(scene: bpy.types.Scene) -> Iterator[tuple[tuple[str, str], Any, Any]]:
    """Strip's and direction's name, container and curve of each keyed direction."""
    animation = scene.animation_data
    if animation is None or animation.action is None or animation.action_slot is None:
        return
    for layer in animation.action.layers:
        for clip in layer.strips:
            bag = clip.channelbag(animation.action_slot)
            for curve in bag.fcurves if bag is not None else ():
                found = _PATH.fullmatch(curve.data_path)
                if found and found[2] in AMOUNTS:
                    yield (bpy.utils.unescape_identifier(found[1]), found[2]), bag, curve


def _sampled(curve: Any, strip: Any, least: float, most: float) -> tuple[float, ...]:
    first, last = compat.strip_span(strip)
    return tuple(round(min(max(curve.evaluate(frame), least), most), 4) for frame in range(first, last + 1))


def _insert_keys(scene: bpy.types.Scene, strip: Any, wanted: Wanted) -> None:
    """Give an amount keys with straight lines between them, spread over the strip, only where its curve bends."""
    first, last = compat.strip_span(strip)
    values = wanted.curve
    strip.keyframe_insert(attribute(wanted.name), frame=first)
    curve = keys_of(scene)[strip.name, wanted.name]
    curve.keyframe_points.clear()
    motion = Motion(weights_TK=np.array([values], np.float32).T, channels=(wanted.name,), fps=1.0)
    (bends,) = reduce_keys(motion, tolerance=_KEYED_TOLERANCE)
    for i in bends.tolist():
        frame = first + i * (last - first) / (len(values) - 1)
        curve.keyframe_points.insert(frame, values[i], options={"FAST"}).interpolation = "LINEAR"
    curve.update()


def _relabel(strip: Any, _context: bpy.types.Context) -> None:
    """A strip that shows directions alone tells what they are."""
    written = custom_properties.as_dict(custom_properties.record(strip, ITEM).get("item"))
    if written.get("tier") == TIER:
        strip.text = strip.name = label_of(read(strip, keys_of(strip.id_data)))


def _amount(name: str, label: str, description: str, **options: Any) -> Any:
    amount = AMOUNTS[name]
    return FloatProperty(
        name=label,
        description=description,
        default=amount.neutral,
        min=amount.least,
        max=amount.most,
        soft_max=min(amount.most, 2.0),
        update=_relabel,
        **options,
    )


def _switch(label: str, description: str) -> Any:
    return BoolProperty(name=label, description=description, options=set(), update=_relabel)


def register() -> None:
    """Give them to text strips."""
    properties = {
        "articulation": _amount(
            "articulation", "Articulation", "How clearly this is articulated: below 0 mumbled, above 0 over-articulated"
        ),
        "strength": _amount(
            "strength", "Strength", "Factor for all motion of the mouth here", translation_context=CONTEXT
        ),
        "jaw": _amount("jaw", "Jaw", "Factor for the motion of the jaw here"),
        "lips": _amount("lips", "Lips", "Factor for the motion of lips and tongue here"),
        "brows": _amount("brows", "Brows", "Above 0, brows rise on the stressed syllable here; below 0 they move less"),
        "head": _amount(
            "head",
            "Head",
            "Above 0, the head nods on the stressed syllable here; below 0 it moves less",
            translation_context=CONTEXT,
        ),
        "closed": _switch("Hold Closed", "The lips stay closed here"),
        "rest": _switch("Rest", "The mouth is at rest here"),
    }
    for name, made in properties.items():
        setattr(bpy.types.TextStrip, attribute(name), made)


def unregister() -> None:
    """Remove them."""
    for name in (*AMOUNTS, *SWITCHES):
        delattr(bpy.types.TextStrip, attribute(name))
