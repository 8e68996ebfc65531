# SPDX-License-Identifier: GPL-3.0-or-later
"""The words and phones of a take: kept on its action, shown as text strips over its sound, and read back from there.

Words are on one channel, phones on two below it in zigzag, so that neighbours never meet; directions for other spans
than a word's are above. A strip has whole frames; the exact seconds are in its custom property and hold for each edge
that nobody has moved. All are muted: Blender renders the sequencer instead of the scene as soon as one picture strip in
it is not.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import bpy

from ...errors import Text, UserError
from ...pipeline.words.heard import doubts
from ...pipeline.words.track import Track
from .. import compat
from . import actions, custom_properties, directions
from .track_edits import SPOKEN, TIERS, Pronounce, Settled, Shown, Tier, settled, shared_out

# Custom properties of an action: the track, where it lies, and what its strips call it.
TRACK, PLACE, IDENTITY = "wav2sem_track", "wav2sem_track_place", "wav2sem_track_id"
# Custom properties of a strip: the identity, and what it said when it was written.
TAKE, ITEM = "wav2sem_take", directions.ITEM

_CHANNELS = 128
# From the lowest.
_CHANNEL_NAMES = ("Phones 1", "Phones 2", "Words", "Directions")
_DIRECTIONS_COLOUR = "COLOR_06"
# Parts of a split strip are cut at a whole frame, at most half a frame from the exact time.
_JOINED_S = 1e-3
_NUMBERED = re.compile(r"\.\d{3,}$")
# Confidence from which a strip is tagged green, and from which yellow; below it is red.
_SURE, _UNSURE = 0.8, 0.5


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a track lies.

    Attributes:
        frame: Frame of the sequencer at which the sound that was heard begins.
        action_frame: The same instant in the action; the face may lag behind the sound.
        action_rate_hz: Frames of the action per second.
        duration_s: Length of what was heard.
        begins_s: Where in the sound's file that begins.
        speed: How many times as fast the scene plays the file.
        sound_frame: First frame of the sound's strip when the strips were written; None without one.
    """

    frame: float
    action_frame: float
    action_rate_hz: float
    duration_s: float
    begins_s: float = 0.0
    speed: float = 1.0
    sound_frame: int | None = None


def remember(action: bpy.types.Action, track: Track, place: Place, identity: str = "") -> None:
    """Keep the track on the action, which a copy of the action copies, too."""
    action[TRACK] = track.to_text()
    action[PLACE] = json.dumps(asdict(place))
    action[IDENTITY] = identity or uuid.uuid4().hex


def shown_of(face: bpy.types.Object) -> dict[int, str]:
    """What the strips of a face's active action call it, by its session_uid; {} if no strips show its track."""
    keys = face.data.shape_keys if face.type == "MESH" else None
    action = keys.animation_data.action if keys is not None and keys.animation_data is not None else None
    return {action.session_uid: str(action[IDENTITY])} if action is not None and strips_of(action)[1] else {}


def has_track(action: bpy.types.Action) -> bool:
    """Whether words or phones are kept on an action."""
    return TRACK in action and PLACE in action


def recorded(action: bpy.types.Action) -> Track:
    """The track that the mouth of a take follows.

    Raises:
        UserError: It is damaged.
    """
    return _track(str(action[TRACK]))


@lru_cache(maxsize=8)
def _track(content: str) -> Track:
    """An edit asks for the same track several times, and a long one takes milliseconds."""
    return Track.from_text(content)


def place_of(action: bpy.types.Action) -> Place:
    """Where the track of a take lies.

    Raises:
        UserError: It is damaged.
    """
    place = custom_properties.described(Place, custom_properties.record(action, PLACE))
    if place is None or min(place.action_rate_hz, place.duration_s, place.speed) <= 0:
        raise UserError('The words of "{action}" are damaged. Animate the face again.', action=action.name)
    return place


def strips_of(action: bpy.types.Action) -> tuple[bpy.types.Scene | None, list[Any]]:
    """The strips that show a take's track, and their scene."""
    identity = action.get(IDENTITY)
    if identity is None or _is_copy(action):
        return None, []
    for scene in bpy.data.scenes:
        found = [strip for strip in compat.all_strips(scene) if strip.get(TAKE) == identity]
        if found:
            return scene, found
    return None, []


def action_of(strip: Any) -> bpy.types.Action | None:
    """The action whose track a strip shows a part of."""
    identity = strip.get(TAKE)
    found = (action for action in bpy.data.actions if identity and action.get(IDENTITY) == identity)
    return min(found, key=lambda action: action.session_uid, default=None)


def item_of(strip: Any) -> Shown | None:
    """What a strip of ours says, in seconds as it was written; None for another strip."""
    written = _written_on(strip)
    return None if written is None else written[0]


def show(context: bpy.types.Context, action: bpy.types.Action) -> int:
    """Write the track of a take as strips, in place of earlier ones; returns how many.

    Raises:
        UserError: The track is damaged, or no four channels above the sound are free.
    """
    track, place = recorded(action), place_of(action)
    if _is_copy(action):
        action[IDENTITY] = uuid.uuid4().hex
    remove(action)
    scene, sound = _scene_and_sound(context, action, place)
    rate_hz = compat.frame_rate_hz(scene)
    last = round(place.frame + max(track.end_s, place.duration_s) * rate_hz) + 1
    base = _free_channels(scene, 1 if sound is None else sound.channel + 1, round(place.frame), last)
    if sound is None:
        sound = _add_sound(scene, action, place, base)
        base += sound is not None
    editor: Any = scene.sequence_editor_create()
    for number, name in enumerate(_CHANNEL_NAMES):
        if editor.channels[base + number].name == _default_name(base + number):
            editor.channels[base + number].name = name
    place = replace(place, sound_frame=compat.strip_span(sound)[0] if sound is not None else None)
    shown = _as_shown(track)
    remember(action, track, place, str(action[IDENTITY]))
    _write(scene, action, shown, place, base)
    if track.directions:
        _remember_as_read(action)
    return len(shown)


def add_directions(action: bpy.types.Action, frames: tuple[int, int]) -> Any:
    """Add a strip for directions, which wants nothing yet, to the strips of a take; returns it.

    Args:
        action: Of the take.
        frames: Its first frame in the sequencer, and the one after its last.

    Raises:
        UserError: They lie outside the sound, the track is damaged, or no channel above the words is free.
    """
    reading = read(action)
    assert reading is not None
    place, rate_hz = reading.place, compat.frame_rate_hz(reading.scene)
    if place != place_of(action):  # all strips were moved, and this one would not be where they are
        keep(action, reading, recorded(action))
    start_s, end_s = ((frame - place.frame) / rate_hz for frame in frames)
    if end_s <= 0 or start_s >= reading.settled.end_s:
        raise UserError("The playhead is outside the sound. Move it there, or select words.")
    written = [strip for strip in strips_of(action)[1] if _written_on(strip)]
    channel = _free_channel(reading.scene, _lowest_for_directions(_channels(written)), *frames)
    item = Shown(tier="directions", key=_new_key(), label=directions.NEUTRAL, start_s=start_s, end_s=end_s)
    return _put(reading.scene, action, item, (channel, *frames), _Names(reading.scene))


def remove(action: bpy.types.Action) -> None:
    """Remove the strips of a take; its track stays on the action."""
    scene, strips = strips_of(action)
    if scene is None:
        return
    channels = {strip.channel for strip in strips if _written_on(strip)}
    _delete(scene, strips)
    editor: Any = scene.sequence_editor
    for channel in channels - {strip.channel for strip in compat.all_strips(scene)}:
        if editor.channels[channel].name in _CHANNEL_NAMES:
            editor.channels[channel].name = _default_name(channel)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the strips of a take say.

    Attributes:
        scene: Theirs.
        settled: Words and phones after the edits.
        place: Where they lie now: all may have been moved together with the sound.
        is_edited: Whether anything differs from the track that the mouth follows.
    """

    scene: bpy.types.Scene
    settled: Settled
    place: Place
    is_edited: bool


def read(action: bpy.types.Action, pronounce: Pronounce | None = None) -> Reading | None:
    """Read the strips of a take; None if there are none.

    Raises:
        UserError: The track of the take is damaged.
    """
    scene, strips = strips_of(action)
    if scene is None:
        return None
    place, rate_hz, track = place_of(action), compat.frame_rate_hz(scene), recorded(action)
    keys = directions.keys_of(scene)
    written = [strip for strip in strips if _written_on(strip)]
    moved = _moved_together(written, _sound_strip(scene, action, place), place)
    place = replace(place, frame=place.frame + moved, sound_frame=place.sound_frame and place.sound_frame + moved)
    shown = _told_apart([_seen(strip, place, moved, rate_hz, keys) for strip in written])
    shown += [_added(strip, tier, place, rate_hz, keys) for strip, tier in _strips_added(scene, written)]
    result = settled(
        shown,
        end_s=max(place.duration_s, track.end_s),
        frame_s=1 / rate_hz,
        pronounce=pronounce,
        language=track.language,
    )
    is_edited = bool(result.problems) or result.track(track.language).to_text() != track.to_text()
    return Reading(scene=scene, settled=result, place=place, is_edited=is_edited)


def current(action: bpy.types.Action) -> Track:
    """What the strips of a take say, or without strips what the mouth follows; in the times of the sound's file.

    Raises:
        UserError: The strips cannot be read.
    """
    reading, place, track = read(action), place_of(action), recorded(action)
    if reading is not None:
        track = reading.settled.track(track.language)
    return track.at_speed(1 / place.speed).later(place.begins_s)


def replace_shown(context: bpy.types.Context, action: bpy.types.Action, track: Track, name: str) -> list[Text]:
    """Show another track, in the times of the sound's file; returns doubts about it.

    Args:
        context: As for `show`.
        action: Of the take.
        track: Of the same sound.
        name: Where it comes from.

    Raises:
        UserError: It is of another sound, or as for `show`.
    """
    place, known = place_of(action), recorded(action)
    track = track.later(-place.begins_s).at_speed(place.speed)
    found = doubts(track, known, max(place.duration_s, known.end_s), name)
    if not strips_of(action)[1]:
        show(context, action)
    scene, strips = strips_of(action)
    assert scene is not None
    channels = _channels([strip for strip in strips if _written_on(strip)])
    base = min(channels["phones"] or channels["words"])
    _delete(scene, [strip for strip in strips if ITEM in strip])
    _write(scene, action, _as_shown(track), place_of(action), base)
    return found


def keep(action: bpy.types.Action, reading: Reading, track: Track) -> None:
    """Keep what was read as the take's track, and let its strips show it: some words and phones gave room."""
    is_moved = place_of(action) != reading.place
    remember(action, track, reading.place, str(action[IDENTITY]))
    shown = (*reading.settled.words, *reading.settled.phones, *reading.settled.directions)
    _write(reading.scene, action, shown, reading.place, only_edited=not is_moved)
    if any(direction.curve for direction in track.directions):
        _remember_as_read(action)


def _remember_as_read(action: bpy.types.Action) -> None:
    """Keep the directions as the strips say them: keys are read at whole frames, and the order may differ."""
    track, reading = recorded(action), read(action)
    if reading is not None and not reading.settled.problems:
        directed = reading.settled.track(track.language).directions
        remember(action, replace(track, directions=directed), place_of(action), str(action[IDENTITY]))


def _is_copy(action: bpy.types.Action) -> bool:
    """Whether this is a copy, made later, of an action with the same strips."""
    twins = (other for other in bpy.data.actions if other.get(IDENTITY) == action.get(IDENTITY))
    return any(twin.session_uid < action.session_uid for twin in twins)


def _as_shown(track: Track) -> list[Shown]:
    """A track that has no strips yet."""
    own, others = shared_out(track)
    keys = [_new_key() for _ in track.words]
    word_of = {phone: keys[word] for word in range(len(keys)) for phone in track.phones_of(word)}
    words = [
        Shown(
            tier="words",
            key=key,
            label=w.text,
            start_s=w.start_s,
            end_s=w.end_s,
            confidence=w.confidence,
            directions=tuple(wanted),
        )
        for key, w, wanted in zip(keys, track.words, own, strict=True)
    ]
    phones = [
        Shown(
            tier="phones",
            key=_new_key(),
            label=p.name,
            start_s=p.start_s,
            end_s=p.end_s,
            word=word_of.get(i, ""),
            confidence=p.confidence,
            forced=p.forced,
        )
        for i, p in enumerate(track.phones)
    ]
    spans = [
        Shown(
            tier="directions",
            key=_new_key(),
            label=directions.label_of(tuple(wanted)),
            start_s=start_s,
            end_s=end_s,
            directions=tuple(wanted),
        )
        for (start_s, end_s), wanted in others.items()
    ]
    return words + phones + spans


def _new_key() -> str:
    return uuid.uuid4().hex[:8]


def _seen(strip: Any, place: Place, moved: int, rate_hz: float, keys: directions.Keys) -> Shown:
    """What a strip says now; an edge that nobody has moved keeps its exact time."""
    item, written = _record(strip[ITEM])
    first, last = (frame - moved for frame in compat.strip_span(strip))
    by = first - written[0], last - written[1]
    origin = place.frame - moved
    if by[0] == by[1]:
        start_s, end_s = item.start_s + by[0] / rate_hz, item.end_s + by[1] / rate_hz
    else:
        start_s = item.start_s if by[0] == 0 else (first - origin) / rate_hz
        end_s = item.end_s if by[1] == 0 else (last - origin) / rate_hz
    wanted = directions.read(strip, keys) if item.tier != "phones" else ()
    return replace(
        item,
        label=directions.label_of(wanted) if item.tier == "directions" else _label(strip, item.label),
        start_s=start_s,
        end_s=end_s,
        was=(item.label, item.start_s, item.end_s),
        strip=strip,
        directions=wanted,
    )


def _written_on(strip: Any) -> tuple[Shown, tuple[int, int]] | None:
    """What a strip said when it was written, and its frames then; None if we did not write it."""
    return _said(custom_properties.text(strip, ITEM)) if strip.type == "TEXT" else None


def _record(content: str) -> tuple[Shown, tuple[int, int]]:
    written = _said(content)
    assert written is not None
    return written


@lru_cache(maxsize=20_000)
def _said(content: str) -> tuple[Shown, tuple[int, int]] | None:
    """Every look at a long take reads thousands of them several times."""
    said = custom_properties.parsed_record(content)
    values, frames = custom_properties.as_dict(said.get("item")), said.get("frames")
    item = custom_properties.described(Shown, values)
    if item is None or item.start_s > item.end_s or not isinstance(frames, list):
        return None
    if not custom_properties.is_list_of(frames, int, 2):
        return None
    return item, (frames[0], frames[1])


def _added(strip: Any, tier: Tier, place: Place, rate_hz: float, keys: directions.Keys) -> Shown:
    start_s, end_s = ((frame - place.frame) / rate_hz for frame in compat.strip_span(strip))
    return Shown(
        tier=tier,
        key=_new_key(),
        label=_one_line(strip.text),
        start_s=start_s,
        end_s=end_s,
        strip=strip,
        directions=directions.read(strip, keys) if tier == "words" else (),
    )


def _label(strip: Any, written: str) -> str:
    """The strip's text, or its name if only that was changed, as with F2."""
    text, name = _one_line(strip.text), strip.name
    if text != written or name == _name_for(written):
        return text
    unnumbered = _NUMBERED.sub("", name)
    return text if unnumbered == _name_for(written) else _one_line(unnumbered)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _name_for(label: str) -> str:
    """A strip's name has 63 bytes, and Blender may need some of them for a number."""
    return label.encode()[:56].decode(errors="ignore")


def _strips_added(scene: bpy.types.Scene, written: Sequence[Any]) -> list[tuple[Any, Tier]]:
    """Text strips that the animator added on the channels of the words and the phones, with their tiers."""
    tiers = {channel: tier for tier, channels in _channels(written).items() for channel in channels if tier in SPOKEN}
    return [
        (strip, tiers[strip.channel])
        for strip in compat.all_strips(scene)
        if strip.type == "TEXT" and TAKE not in strip and strip.channel in tiers and _is_near(strip, written)
    ]


def _is_near(strip: Any, written: Sequence[Any]) -> bool:
    """Whether a strip lies between the first and the last of others; another line may be on the same channels."""
    spans = [compat.strip_span(other) for other in written]
    first, last = compat.strip_span(strip)
    return min(start for start, _ in spans) < last and first < max(end for _, end in spans)


def _channels(written: Iterable[Any]) -> dict[Tier, list[int]]:
    """The channels of each tier, those with the most strips first."""
    counts: dict[Tier, Counter[int]] = {tier: Counter() for tier in TIERS}
    for strip in written:
        counts[_record(strip[ITEM])[0].tier][strip.channel] += 1
    return {tier: [channel for channel, _ in counts[tier].most_common(2 if tier == "phones" else 1)] for tier in counts}


def _moved_together(written: Sequence[Any], sound: Any, place: Place) -> int:
    """Frames by which all strips were moved, or all but those that were edited besides, together with the sound."""
    by: Counter[int | None] = Counter()
    for strip in written:
        first, last = _record(strip[ITEM])[1]
        start, end = compat.strip_span(strip)
        by[start - first if start - first == end - last else None] += 1
    if len(by) == 1:
        return next(iter(by)) or 0
    if sound is None or place.sound_frame is None:
        return 0
    with_sound = compat.strip_span(sound)[0] - place.sound_frame
    return with_sound if by[with_sound] * 2 > len(written) else 0


def _told_apart(shown: Sequence[Shown]) -> list[Shown]:
    """Strips that Blender copied have one key: parts of a split strip, or duplicates. Each gets its own."""
    by_key: dict[str, list[Shown]] = {}
    for item in shown:
        by_key.setdefault(item.key, []).append(item)
    apart: list[Shown] = []
    halves: dict[str, list[Shown]] = {}
    for key, items in by_key.items():
        if len(items) == 1:
            apart += items
            continue
        items = sorted(items, key=lambda item: item.start_s)
        if _are_parts(items):
            parts = [
                replace(item, key=_new_key() if i else key, was=(item.was[0], item.start_s, item.end_s))  # type: ignore[index]
                for i, item in enumerate(items)
            ]
            halves[key] = parts
            apart += parts
            continue
        original = min(items, key=lambda item: abs(item.start_s - item.was[1]))  # type: ignore[index]
        apart += [item if item is original else replace(item, key=_new_key(), was=None) for item in items]
    return [_of_its_half(item, halves[item.word]) if item.word in halves else item for item in apart]


def _are_parts(items: Sequence[Shown]) -> bool:
    """Whether strips with one key lie in a row where the one was."""
    was = items[0].was
    assert was is not None
    joined = all(abs(a.end_s - b.start_s) < _JOINED_S for a, b in pairwise(items))
    return joined and abs(items[0].start_s - was[1]) < _JOINED_S and abs(items[-1].end_s - was[2]) < _JOINED_S


def _of_its_half(phone: Shown, halves: Sequence[Shown]) -> Shown:
    middle_s = (phone.start_s + phone.end_s) / 2
    return replace(phone, word=next((half.key for half in halves if middle_s < half.end_s), halves[-1].key))


def _write(
    scene: bpy.types.Scene,
    action: bpy.types.Action,
    shown: Sequence[Shown],
    place: Place,
    base: int | None = None,
    only_edited: bool = False,
) -> None:
    """Make the strips say what `shown` says; a strip that does so already stays, with its channel and selection.

    With `only_edited`, those that were not edited are known to say it.
    """
    _, strips = strips_of(action)
    written = [strip for strip in strips if _written_on(strip)]
    channels: dict[Tier, list[int]] = (
        {"phones": [base, base + 1], "words": [base + 2], "directions": [base + 3]} if base else _channels(written)
    )
    kept = {item.strip.as_pointer() for item in shown if item.strip is not None}
    _delete(scene, [strip for strip in written if strip.as_pointer() not in kept])
    names = _Names(scene)
    for item in shown:
        if item.tier == "directions" and (item.strip is None or item.rank or not only_edited):
            first, last = _frames(item, place, compat.frame_rate_hz(scene))
            channel = item.strip.channel if item.strip is not None else 0
            if item.strip is None or item.follows:
                channel = _free_channel(scene, channel or _lowest_for_directions(channels), first, last, item.strip)
            _put(scene, action, item, (channel, first, last), names)
    for tier in SPOKEN:
        ends: dict[int, int] = {}
        turn = 0
        for item in shown:
            if item.tier != tier:
                continue
            first, last = _frames(item, place, compat.frame_rate_hz(scene))
            own = channels[tier] or [max((strip.channel for strip in compat.all_strips(scene)), default=0) + 1]
            wanted = [*([item.strip.channel] if item.strip is not None else []), *own[turn:], *own[:turn]]
            channel = next((some for some in wanted if ends.get(some, first) <= first), None)
            if channel is None:  # shorter than a frame: it is shown beside its neighbours, its times stay exact
                channel = min(own, key=lambda some: ends[some])
                first = ends[channel]
                last = max(last, first + 1)
            ends[channel] = last
            turn = (own.index(channel) + 1) % len(own) if channel in own else turn
            if item.strip is None or item.rank or not only_edited or channel != item.strip.channel:
                _put(scene, action, item, (channel, first, last), names)


def _frames(item: Shown, place: Place, rate_hz: float) -> tuple[int, int]:
    """Frames of a strip: those where the animator put it, or the nearest to its times."""
    if item.strip is not None and not item.follows:
        return compat.strip_span(item.strip)
    first, last = (round(place.frame + time_s * rate_hz) for time_s in (item.start_s, item.end_s))
    return first, max(last, first + 1)


class _Names:
    """Free names for strips. Blender looks for one itself, but for thousands of phones that takes minutes."""

    def __init__(self, scene: bpy.types.Scene) -> None:
        self._taken = {strip.name for strip in compat.all_strips(scene)}
        self._numbers: Counter[str] = Counter()

    def __call__(self, label: str) -> str:
        """The label, with a number if a strip has that name already."""
        name = base = _name_for(label)
        while name in self._taken:
            self._numbers[base] += 1
            name = f"{base}.{self._numbers[base]:03d}"
        self._taken.add(name)
        return name


def _put(
    scene: bpy.types.Scene, action: bpy.types.Action, item: Shown, place: tuple[int, int, int], names: _Names
) -> Any:
    """Give an item its strip at a channel, from a frame to before another: the one that it has, or a new one.

    Blender moves a strip whose frames are set to another channel if it then meets its neighbour, a new one not.
    """
    channel, first, last = place
    strip, key = item.strip, item.key or _new_key()
    if strip is None or (strip.channel, *compat.strip_span(strip)) != place:
        editor, old = scene.sequence_editor_create(), strip
        strip = compat.new_text_strip(editor, names(item.label), channel, first, last)
        strip.select = bool(old is not None and old.select)
        if old is not None:
            directions.hand_over(scene, old, strip)
            _delete(scene, [old])
        elif item.directions:
            directions.write(scene, strip, item.directions)
    if strip.text != item.label:
        strip.text = item.label
    if _NUMBERED.sub("", strip.name) != _name_for(item.label):
        strip.name = names(item.label)
    if not strip.mute:
        strip.mute = True
    colour = "COLOR_04" if item.confidence >= _SURE else "COLOR_03" if item.confidence >= _UNSURE else "COLOR_01"
    if item.tier == "directions":
        colour = _DIRECTIONS_COLOUR
    if strip.color_tag != colour:
        strip.color_tag = colour
    content = {
        "tier": item.tier,
        "key": key,
        "label": item.label,
        "start_s": round(item.start_s, 4),
        "end_s": round(item.end_s, 4),
        "word": item.word,
        "confidence": round(item.confidence, 3),
        "forced": item.forced,
    }
    strip[TAKE], strip[ITEM] = action[IDENTITY], json.dumps({"item": content, "frames": [first, last]})
    return strip


def _default_name(channel: int) -> str:
    """Blender's name of a channel."""
    return "Channel " + str(channel)


def _delete(scene: bpy.types.Scene, strips: Iterable[Any]) -> None:
    for strip in strips:
        meta = strip.parent_meta()
        (meta.strips if meta is not None else compat.sequencer_strips(scene.sequence_editor)).remove(strip)


def _scene_and_sound(context: bpy.types.Context, action: bpy.types.Action, place: Place) -> tuple[bpy.types.Scene, Any]:
    """The scene for the strips, and the strip of the take's sound in it, if there is one."""
    here = compat.sequencer_scene(context)
    for scene in dict.fromkeys((here, context.scene, *bpy.data.scenes)):
        sound = _sound_strip(scene, action, place) if scene is not None and scene.library is None else None
        if sound is not None:
            return scene, sound
    return here, None


def _sound_strip(scene: bpy.types.Scene, action: bpy.types.Action, place: Place) -> Any:
    """The strip that plays the sound of a take, the nearest one if there are several."""
    settings, block = custom_properties.record(action, actions.SETTINGS), action.get(actions.SOUND)
    path = _heard_file(action)
    found = [
        strip
        for strip in compat.sound_strips(scene)
        if strip.name == settings.get("strip")
        or (strip.sound is not None and strip.sound == block)
        or (path and strip.sound is not None and _absolute(strip.sound.filepath) == _absolute(path))
    ]
    return min(found, key=lambda strip: abs(compat.strip_span(strip)[0] - place.frame), default=None)


def _heard_file(action: bpy.types.Action) -> str:
    """The file that a take's run heard; "" if it heard none."""
    path = custom_properties.record(action, actions.SETTINGS).get("filepath")
    return path if isinstance(path, str) else ""


def _absolute(path: str) -> str:
    return os.path.normpath(bpy.path.abspath(path))


def _add_sound(scene: bpy.types.Scene, action: bpy.types.Action, place: Place, channel: int) -> Any:
    """Put the file that was heard into the sequencer, so that its waveform lies below the words; None without a file.

    Not if a speaker plays it, which would then be heard twice.
    """
    path = _heard_file(action)
    if not path or not os.path.isfile(_absolute(path)):
        return None
    first = round(place.frame - place.begins_s / place.speed * compat.frame_rate_hz(scene))
    strips = compat.sequencer_strips(scene.sequence_editor_create())
    strip = strips.new_sound(os.path.basename(path), path, channel=channel, frame_start=first)
    strip[TAKE], strip.show_waveform = action[IDENTITY], True
    return strip


def _free_channels(scene: bpy.types.Scene, lowest: int, first: int, last: int) -> int:
    """The lowest of four channels above each other that have no strip between two frames, and the one above them."""
    taken = {strip.channel for strip in compat.all_strips(scene) if _overlaps(strip, first, last)}
    for base in range(lowest, _CHANNELS - 4):
        if not taken & set(range(base, base + 5)):
            return base
    raise UserError("No four channels of the sequencer are free above the sound. Move its strip to a lower channel.")


def _free_channel(scene: bpy.types.Scene, lowest: int, first: int, last: int, without: Any = None) -> int:
    """The lowest channel from one on that has no strip between two frames, beside the strip `without`."""
    own = without.as_pointer() if without is not None else 0
    others = (strip for strip in compat.all_strips(scene) if strip.channel >= lowest and strip.as_pointer() != own)
    taken = {strip.channel for strip in others if _overlaps(strip, first, last)}
    channel = next((some for some in range(lowest, _CHANNELS + 1) if some not in taken), None)
    if channel is None:
        raise UserError("No channel of the sequencer is free above the words there. Move or delete a strip.")
    return channel


def _lowest_for_directions(channels: Mapping[Tier, Sequence[int]]) -> int:
    """The channel of directions, or the one above all words and phones."""
    return min(channels["directions"], default=max([0, *channels["words"], *channels["phones"]]) + 1)


def _overlaps(strip: Any, first: int, last: int) -> bool:
    start, end = compat.strip_span(strip)
    return start < last and first < end
