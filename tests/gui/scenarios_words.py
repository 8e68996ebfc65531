# SPDX-License-Identifier: GPL-3.0-or-later
"""A newcomer's words: paste a line, animate, see its words in the Sequencer, rename one and drag another."""

from __future__ import annotations

from typing import Any

import bpy
import scenarios_any_head as heads
import scenarios_guide as guide
import scenarios_result as results
import stage
from checks import Figures, Scenario
from harness import TURN_S, Gui, Steps

LINE = "Please put the paper boat by the pond. My mother made me five more ships before we both hear the music."
PASTE, SHOW, OPEN = "wav2sem.paste_transcript", "wav2sem.show_words", "wav2sem.open_sequencer"
HIDE, EXPORT, ADD = "wav2sem.hide_words", "wav2sem.export_words", "wav2sem.add_directions"
# How far an edit may reach beyond its strip, in seconds: its fade, and half a frame.
REACH_S = 0.25
# The word that the mouse drags to the left, by so many frames: there is silence before it. And one to be directed.
DRAGGED, FRAMES, RESTING = "Please", -3, "by"
# Words over which directions are added, and by how many frames their end is dragged.
SPANNED, SPAN_FRAMES = ("paper", "boat"), 4


class InSequencer(Gui):
    """The same window; its area is the Sequencer's."""

    @property
    def area(self) -> Any:
        """The Sequencer."""
        return next(area for area in self.window.screen.areas if area.type == "SEQUENCE_EDITOR")


def guide_words(gui: Gui) -> Steps[None]:
    """The guide's picture: a renamed word in the Sequencer, directions above it, and their panel."""
    gui.window.scene.wav2sem_upper_face.enabled = True
    below = yield from _shown(gui)
    yield from _renamed(gui, below)
    yield from _add_directions(below, ("paper", "goat"))
    yield from _set(below, "jaw", "1.5")
    yield from _set(below, "brows", "1")
    yield from gui.until(lambda: len(_directed()) == 2, "the directions", 20)
    gui.window.scene.frame_set(round(1 + _rate() * _span("goat")[0]))
    yield from gui.move(gui.middle_of_view())
    yield from guide._crop(gui, "words", (0, 0, gui.window.width, gui.window.height))


def words_in_hand(gui: Gui) -> Steps[Figures]:
    """Renaming, dragging and directing words changes the mouth there and nowhere else; undo brings all back."""
    below = yield from _shown(gui)
    renamed = yield from _renamed(gui, below)
    before, old = _curves(), _span(DRAGGED)
    yield from _drag(below, DRAGGED, FRAMES)
    yield from gui.until(lambda: _span(DRAGGED)[0] < old[0] - 1 / _rate(), "the mouth of the moved word", 20)
    yield 0.5
    _inside(_changed(before, _curves()), (_span(DRAGGED)[0] - 0.2, old[1] + 0.2))
    yield from gui.picture("words_dragged")
    yield from below.key("Z", _middle(below), ctrl=True)
    yield from gui.until(lambda: abs(_span(DRAGGED)[0] - old[0]) < 1e-3, "the undone move", 20)
    yield 0.5
    assert not _changed(before, _curves()), "undo does not bring the curves back"
    yield from _direct(below)
    yield from gui.until(lambda: _track().directions, "the direction", 20)
    yield 0.5
    _inside(_changed(before, _curves()), _span(RESTING))
    yield from gui.picture("words_directed")
    yield from results._press(below, HIDE)
    yield from gui.until(lambda: not _strips(), "the strips' end", 10)
    return {"frames of the renamed word": f"{min(renamed)} to {max(renamed)}"}


def words_in_a_span(gui: Gui) -> Steps[Figures]:
    """Directions over two words: their end is dragged, Jaw and Brows are set, Jaw is keyed; undo brings all back."""
    gui.window.scene.wav2sem_upper_face.enabled = True
    below = yield from _shown(gui)
    mouth, brows = _curves(), _brows()
    yield from _add_directions(below, SPANNED)
    first, last = _span(SPANNED[0])[0], _span(SPANNED[1])[1]
    dragged = _strip("neutral")
    old = stage.part("blender.compat").strip_span(dragged)
    yield from _drag(below, "neutral", SPAN_FRAMES, at_its_end=True)
    wider = stage.part("blender.compat").strip_span(_strip("neutral"))
    assert wider == (old[0], old[1] + SPAN_FRAMES), f"{old} became {wider}"
    last += SPAN_FRAMES / _rate()
    yield 1.0
    assert not _changed(mouth, _curves()), "a strip that wants nothing changed the mouth"
    yield from _set(below, "jaw", "2")
    yield from gui.until(lambda: _directed() == ["jaw"], "the jaw's direction", 20)
    yield 0.5
    moved = _changed(mouth, _curves())
    _inside(moved, (first, last))
    assert _brows() == brows, "brows follow the jaw"
    wide = _curves()
    yield from _set(below, "brows", "1.5")
    yield from gui.until(lambda: _brows() != brows, "the brows", 20)
    yield 0.5
    assert not _changed(wide, _curves()), "the mouth follows the brows"
    frames = _frames_that_differ(brows, _brows())
    assert 1 + _rate() * (first - 0.5) < min(frames) and max(frames) < 1 + _rate() * (last + 0.8), sorted(frames)
    yield from gui.picture("words_span")
    yield from _key(below, "jaw", old[0])
    yield from _set(below, "jaw", "0.5", frame=wider[1])
    yield from _key(below, "jaw", wider[1])
    yield from gui.until(lambda: any(d.curve for d in _track().directions), "the curve of the keys", 20)
    yield 0.5
    assert _changed(wide, _curves()), "the mouth does not follow the keys"
    yield from gui.picture("words_keyed")
    n_undone = 0
    while _directed() and n_undone < 10:
        yield from below.key("Z", _middle(below), ctrl=True)
        yield 1.0
        n_undone += 1
    yield 1.0
    assert not _directed() and not _changed(mouth, _curves()), "undo does not bring the mouth back"
    left = _frames_that_differ(brows, _brows())
    assert not left, f"undo does not bring the brows back: {left}"
    return {
        "frames of the jaw": f"{min(moved)} to {max(moved)}",
        "frames of the brows": f"{min(frames)} to {max(frames)}",
        "steps undone": n_undone,
    }


def _add_directions(below: Gui, words: tuple[str, str]) -> Steps[None]:
    """Select two words and press Add Directions."""
    yield from below.click(_place_of(below, _strip(words[0])))
    yield 0.3
    place = _place_of(below, _strip(words[1]))
    yield from below.move(place)
    for value in ("PRESS", "RELEASE"):
        below._event("LEFTMOUSE", value, place, shift=True)
        yield TURN_S
    yield 0.5
    yield from results._press(below, ADD)
    yield from below.until(lambda: any(strip.text == "neutral" for strip in _strips()), "the new strip", 10)


def _set(below: Gui, name: str, value: str, frame: int = 0) -> Steps[None]:
    """Type a value into an amount of the active strip."""
    if frame:
        below.window.scene.frame_set(frame)
        yield 0.3
    place = yield from _amount(below, name)
    yield from below.write(value, place)
    yield from below.move(_middle(below))


def _key(below: Gui, name: str, frame: int) -> Steps[None]:
    """Press I over an amount of the active strip."""
    if below.window.scene.frame_current != frame:
        below.window.scene.frame_set(frame)
        yield 0.3
    place = yield from _amount(below, name)
    yield from below.key("I", place)
    yield 0.5
    yield from below.move(_middle(below))


def _amount(below: Gui, name: str) -> Steps[tuple[int, int]]:
    """Where an amount is in the sidebar; its path has the strip's name, which changes with what it wants."""
    active = below.window.scene.sequence_editor.active_strip
    return (yield from below.find(f'sequence_editor.strips_all["{active.name}"].wav2sem_{name}'))


def _directed() -> list[str]:
    return [direction.name for direction in _track().directions]


def _brows() -> dict[str, list[float]]:
    """The values of the brows' curves at each frame."""
    takes = stage.part("blender.scene.takes")
    upper = next(take for take in takes.of_face(stage.head()) if take.is_upper_face)
    curves = {name: curve for name, curve in upper.curves() if name.startswith("brow")}
    assert curves, "the upper face has no brows"
    frames = range(1, bpy.context.scene.frame_end + 1)
    return {name: [round(curve.evaluate(frame), 4) for frame in frames] for name, curve in curves.items()}


def _frames_that_differ(one: dict[str, list[float]], other: dict[str, list[float]]) -> list[int]:
    rows = zip(*(zip(one[name], other[name], strict=True) for name in one), strict=True)
    return [frame for frame, row in enumerate(rows, start=1) if any(abs(a - b) > 1e-3 for a, b in row)]


def _shown(gui: Gui) -> Steps[InSequencer]:
    """Paste the line, animate, and show its words in the Sequencer."""
    yield from stage.ready(gui, stage.demo_speech())
    yield from _paste(gui)
    yield from _scroll(gui)
    yield from stage.start(gui)
    yield from stage.finish(gui)
    words = [word.text for word in _track().words]
    assert len(words) > 15 and "boat" in words, words
    yield from _show(gui)
    below = InSequencer(gui.folder)
    below.pictures = gui.pictures
    yield from gui.picture("words")
    return below


def _renamed(gui: Gui, below: Gui) -> Steps[set[int]]:
    """Rename a word; returns the frames that changed."""
    first = _curves()
    yield from _rename(below, "boat", "goat")
    yield from gui.until(lambda: "goat" in [word.text for word in _track().words], "the mouth of the new word", 20)
    yield 0.5
    renamed = _changed(first, _curves())
    _inside(renamed, _span("goat"))
    phones = [phone.name for phone in _track().phones if _span("goat")[0] <= phone.start_s < _span("goat")[1]]
    assert phones == ["G", "OW", "T"], phones
    return renamed


def _paste(gui: Gui) -> Steps[None]:
    """Open What Is Said, and paste the line with its button."""
    yield from heads.open_panel(gui, "wav2sem.transcript", below="wav2sem.play_speech")
    place = yield from results._place(gui, PASTE)
    bpy.context.window_manager.clipboard = LINE
    yield from gui.click(place)
    yield from gui.until(lambda: gui.window.scene.wav2sem.transcript == LINE, "the line", 5)
    yield from gui.move(gui.middle_of_view())
    yield from gui.picture("words_pasted")


def _show(gui: Gui) -> Steps[None]:
    """Open the Words panel, show the words, and open the Sequencer below."""
    yield from heads.open_panel(gui, SHOW, below="wav2sem.range_start_s")
    yield from results._press(gui, SHOW)
    yield from gui.until(_strips, "the strips", 10)
    yield from _scroll(gui)
    yield from gui.picture("words_shown")
    yield from results._press(gui, OPEN)
    yield from gui.until(lambda: any(a.type == "SEQUENCE_EDITOR" for a in gui.window.screen.areas), "the Sequencer", 10)
    yield 1.0


def _scroll(gui: Gui) -> Steps[None]:
    """Turn the mouse wheel over the sidebar until its end is shown."""
    region = gui.region("UI")
    place = region.x + region.width // 2, region.y + region.height // 2
    yield from gui.move(place)
    for _ in range(25):
        gui._event("WHEELDOWNMOUSE", "PRESS", place)
        yield TURN_S
    yield from gui.move(gui.middle_of_view())
    yield 0.5


def _rename(gui: Gui, old: str, new: str) -> Steps[None]:
    """Click a word and rename it with F2."""
    place = _place_of(gui, _strip(old))
    yield from gui.click(place)
    yield 0.3
    yield from gui.key("F2", place)
    yield 0.5
    yield from gui.key("A", place, ctrl=True)
    for character in new:
        gui._event(character.upper(), "PRESS", place, unicode=character)
        gui._event(character.upper(), "RELEASE", place)
        yield 0.0
    yield from gui.key("RET", place)
    yield from gui.move(_middle(gui))


def _drag(gui: Gui, text: str, frames: int, at_its_end: bool = False) -> Steps[None]:
    """Drag a strip, or its right end."""
    x, y = _place_of(gui, _strip(text))
    yield from gui.click((x, y))
    yield 0.3
    if at_its_end:
        last = stage.part("blender.compat").strip_span(_strip(text))[1]
        x = gui.region().x + _view(gui).view_to_region(last, 1, clip=False)[0] - 3
    one = (
        _view(gui).view_to_region(frames, 1, clip=False)[0] - _view(gui).view_to_region(0, 1, clip=False)[0]
    ) / frames
    yield from gui.move((x, y))
    gui._event("LEFTMOUSE", "PRESS", (x, y))
    yield TURN_S
    for step in range(1, 11):
        gui._event("MOUSEMOVE", "NOTHING", (x + round(one * frames * step / 10), y))
        yield TURN_S
    gui._event("LEFTMOUSE", "RELEASE", (x + round(one * frames), y))
    yield TURN_S


def _view(gui: Gui) -> Any:
    return gui.region().view2d


def _direct(gui: Gui) -> Steps[None]:
    """Click a word, and let the mouth rest in it, in the Sequencer's sidebar."""
    yield from gui.click(_place_of(gui, _strip(RESTING)))
    yield 0.5
    yield from _scroll(gui)
    yield from gui.click((yield from results._place(gui, f'sequence_editor.strips_all["{RESTING}"].wav2sem_rest')))
    yield from gui.move(_middle(gui))


def _place_of(gui: Gui, strip: Any) -> tuple[int, int]:
    """The middle of a strip in the window."""
    first, last = stage.part("blender.compat").strip_span(strip)
    x, y = _view(gui).view_to_region((first + last) / 2, strip.channel + 0.5, clip=False)
    return gui.region().x + x, gui.region().y + y


def _middle(gui: Gui) -> tuple[int, int]:
    """An empty place of the Sequencer: its highest channel."""
    return gui.region().x + gui.region().width // 2, gui.region().y + gui.region().height - 40


def _action() -> Any:
    return stage.head().data.shape_keys.animation_data.action


def _track() -> Any:
    return stage.part("blender.scene.speech_track").recorded(_action())


def _strips() -> list[Any]:
    return [strip for strip in stage.part("blender.scene.speech_track").strips_of(_action())[1] if strip.type == "TEXT"]


def _strip(text: str) -> Any:
    return next(strip for strip in _strips() if strip.text == text)


def _span(text: str) -> tuple[float, float]:
    word = next(word for word in _track().words if word.text == text)
    return word.start_s, word.end_s


def _rate() -> float:
    return float(stage.part("blender.compat").frame_rate_hz(bpy.context.scene))


def _curves() -> dict[str, list[tuple[float, float]]]:
    return {path: stage.points_of(_action(), path) for path in stage.curves()}


def _changed(before: dict[str, Any], after: dict[str, Any]) -> set[int]:
    """Frames at which any key differs."""
    assert before.keys() == after.keys()
    differ: set[int] = set()
    for path, points in before.items():
        assert len(points) == len(after[path]), path
        differ |= {round(a[0]) for a, b in zip(points, after[path], strict=True) if abs(a[1] - b[1]) > 1e-5}
    return differ


def _inside(frames: set[int], span_s: tuple[float, float]) -> None:
    """Assert that something changed, and nothing far from a span."""
    first, last = (1 + _rate() * (time_s + sign * REACH_S) for time_s, sign in zip(span_s, (-1, 1), strict=True))
    assert frames and first <= min(frames) and max(frames) <= last, f"{sorted(frames)} are not in {first}..{last}"


ALL: tuple[Scenario, ...] = (words_in_hand, words_in_a_span)
GUIDE: tuple[Scenario, ...] = (guide_words,)
