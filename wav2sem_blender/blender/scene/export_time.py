# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves a whole animation in time while it is exported: a scene's range cannot begin before frame 0."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import bpy

from .. import compat


@contextmanager
def moved(context: bpy.types.Context, frames: int) -> Iterator[None]:
    """Let everything that the view layer shows play so many scene frames later; the actions stay as they are.

    An active action is replaced by a moved copy, NLA strips are moved, and all is put back.
    """
    if not frames:
        yield
        return
    distance = frames * compat.time_stretch(context.scene)
    owners = [block.original for block in context.evaluated_depsgraph_get().ids]
    copies: dict[bpy.types.Action, bpy.types.Action] = {}
    with ExitStack() as undo:
        undo.callback(lambda: [bpy.data.actions.remove(copy) for copy in copies.values()])
        for animation in {animation for owner in owners if (animation := getattr(owner, "animation_data", None))}:
            # In the NLA's tweak mode the action is a strip's, whose place decides.
            if animation.action is not None and not animation.use_tweak_mode:
                _move_action(animation, distance, copies, undo)
            for track in animation.nla_tracks:
                _move_strips(track.strips, distance, undo)
        yield


def _move_action(animation: Any, distance: float, copies: dict[Any, Any], undo: ExitStack) -> None:
    action, slot = animation.action, animation.action_slot
    if action not in copies:
        copies[action] = action.copy()
        for layer in copies[action].layers:
            for strip in layer.strips:
                for bag in strip.channelbags:
                    for curve in bag.fcurves:
                        _move_curve(curve, distance)

    def restore() -> None:
        animation.action = action
        animation.action_slot = slot

    undo.callback(restore)
    animation.action = copies[action]
    if slot is not None:
        animation.action_slot = next(other for other in copies[action].slots if other.handle == slot.handle)


def _move_strips(strips: Any, distance: float, undo: ExitStack) -> None:
    # From the last to the first, so that no strip meets its neighbour; put back in the other order.
    for strip in reversed(list(strips)):
        _move_strip(strip, distance)
        undo.callback(_move_strip, strip, -distance)
        for curve in strip.fcurves:
            _move_curve(curve, distance)
            undo.callback(_move_curve, curve, -distance)


def _move_strip(strip: Any, distance: float) -> None:
    start, end = strip.frame_start + distance, strip.frame_end + distance
    # The end that moves away from the other one goes first: a strip cannot be turned around.
    for name, frame in (("frame_end", end), ("frame_start", start))[:: 1 if distance > 0 else -1]:
        setattr(strip, name, frame)


def _move_curve(curve: Any, distance: float) -> None:
    for point in curve.keyframe_points:
        point.co_ui[0] += distance
    for modifier in curve.modifiers:
        if modifier.type == "NOISE":
            modifier.offset += distance
        if modifier.use_restricted_range:
            modifier.frame_end += distance
            modifier.frame_start += distance
    curve.update()
