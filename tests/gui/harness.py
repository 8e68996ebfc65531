# SPDX-License-Identifier: GPL-3.0-or-later
"""Drive Blender's window from inside it with simulated mouse and keyboard events, one small step per main-loop turn.

A scenario is a generator: it yields the seconds to wait, and whatever it calls with `yield from` does the same. One
timer runs it, so that Blender handles the events and redraws between two steps as it does under a person's hands.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

import bpy

T = TypeVar("T")
Steps = Generator[float, None, T]

# Blender draws in the turn after it handled an event.
TURN_S = 0.06
ROW_PX = 9
_EMPTY_PX = 150
# Opening and closing a panel is animated.
_FOLDING_S = 0.5
# How the Info editor lists the calls with which this module finds a control.
_OWN_LOOKS = "bpy.ops.ui.copy_"
_CHARACTERS = {" ": "SPACE", ".": "PERIOD", "/": "SLASH", "-": "MINUS", "_": "MINUS"}
_DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")


class Gui:
    """The window, with simulated mouse and keyboard.

    Attributes:
        folder: Where the pictures go.
        pictures: Their names, in the order in which they were taken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures: list[str] = []
        self._places: dict[str, tuple[int, int]] = {}

    @property
    def window(self) -> Any:
        """The main window; loading a file replaces the object."""
        return next(window for window in bpy.context.window_manager.windows if window.parent is None)

    @property
    def area(self) -> Any:
        """The largest 3D viewport."""
        areas = [area for area in self.window.screen.areas if area.type == "VIEW_3D"]
        return max(areas, key=lambda area: area.width * area.height)

    def region(self, kind: str = "WINDOW") -> Any:
        """A region of the viewport: "WINDOW" is the view itself, "UI" the sidebar."""
        return next(region for region in self.area.regions if region.type == kind)

    def override(self, kind: str = "WINDOW") -> Any:
        """The context that an operator of the viewport needs."""
        area, region = self.area, self.region(kind)
        return bpy.context.temp_override(window=self.window, screen=self.window.screen, area=area, region=region)

    def middle_of_view(self) -> tuple[int, int]:
        """A place in the viewport that no other region covers."""
        region = self.region()
        return region.x + region.width // 3, region.y + region.height // 2

    def move(self, place: tuple[int, int]) -> Steps[None]:
        """Move the mouse there."""
        self._event("MOUSEMOVE", "NOTHING", place)
        yield TURN_S

    def click(self, place: tuple[int, int]) -> Steps[None]:
        """Move, press and release the left button."""
        yield from self.move((place[0] - 2, place[1]))
        yield from self.move(place)
        for value in ("PRESS", "RELEASE"):
            self._event("LEFTMOUSE", value, place)
            yield TURN_S

    def key(self, name: str, place: tuple[int, int] | None = None, **modifiers: bool) -> Steps[None]:
        """Press and release a key, by default over the viewport."""
        place = place or self.middle_of_view()
        yield from self.move(place)
        for value in ("PRESS", "RELEASE"):
            self._event(name, value, place, **modifiers)
            yield TURN_S

    def write(self, text: str, place: tuple[int, int]) -> Steps[None]:
        """Replace the text of the field at `place`: double click, select all, type, Enter."""
        yield from self.click(place)
        self._event("LEFTMOUSE", "PRESS", place)
        self._event("LEFTMOUSE", "RELEASE", place)
        yield TURN_S
        yield from self.key("A", place, ctrl=True)
        for character in text:
            self._event(_key_of(character), "PRESS", place, unicode=character)
            self._event(_key_of(character), "RELEASE", place)
            yield 0.0
        yield from self.key("RET", place)

    def dismiss(self) -> Steps[None]:
        """Close a message's popup with Esc, and move the mouse out of the way."""
        yield from self.key("ESC")
        yield from self.move((self.region().x + 40, self.region().y + 20))
        yield 0.3

    def until(self, condition: Callable[[], T], what: str, limit_s: float = 60.0) -> Steps[T]:
        """Wait for a condition and return its value.

        Raises:
            AssertionError: It did not come true in time.
        """
        end_s = time.monotonic() + limit_s
        while not (result := condition()):
            assert time.monotonic() < end_s, f"after {limit_s:.0f} s still waiting for: {what}"
            yield 0.02
        return result

    def picture(self, name: str) -> Steps[None]:
        """Take a picture of the whole screen, if ImageMagick is installed."""
        # Blender does not redraw for a script's changes, and panels move to their places gradually.
        for _ in range(2):
            for area in self.window.screen.areas:
                area.tag_redraw()
            yield _FOLDING_S / 2
        program = shutil.which("import")
        if program is not None:
            file = f"{len(self.pictures) + 1:02d}_{name}.png"
            subprocess.run([program, "-window", "root", str(self.folder / file)], check=True)
            self.pictures.append(file)

    def open_sidebar(self, tab: str) -> Steps[None]:
        """Show the sidebar with the key N, and one of its tabs."""
        if not self.area.spaces.active.show_region_ui:
            yield from self.key("N")
        yield from self.until(lambda: self.region("UI").width > 1, "the sidebar")
        yield 4 * TURN_S
        self.region("UI").active_panel_category = tab
        self.region("UI").tag_redraw()
        yield 4 * TURN_S

    def controls(self, wanted: str = "", top: int | None = None) -> Steps[dict[str, tuple[int, int]]]:
        """Find what the sidebar offers by moving the mouse down over it.

        Args:
            wanted: Stop as soon as this control is found.
            top: Begin at this height of the window, by default at the sidebar's top.

        Returns:
            Where each control is in the window: operators by name ("wav2sem.animate"), properties by path
            ("wav2sem.filepath").
        """
        region = self.region("UI")
        found: dict[str, tuple[int, int]] = {}
        top = lowest_px = top or region.y + region.height - 4
        for y in range(top, region.y, -ROW_PX):
            place = (region.x + int(region.width * 0.62), y)
            name = yield from self._control_at(place)
            if name:
                found.setdefault(name, place)
                lowest_px = y
            if name and name == wanted:
                break
            # Below so much empty space there is nothing.
            if lowest_px - y > _EMPTY_PX:
                break
        return found

    def find(self, name: str) -> Steps[tuple[int, int]]:
        """Return where a control is now.

        Raises:
            AssertionError: The sidebar does not show it.
        """
        known = self._places.get(name)
        if known is not None and (yield from self._control_at(known)) == name:
            return known
        found = yield from self.controls(wanted=name)
        self._places |= found
        assert name in found, f"the sidebar shows no {name}; it shows {sorted(found)}"
        return found[name]

    def _control_at(self, place: tuple[int, int]) -> Steps[str]:
        """Name the control under `place`, "" without one."""
        manager = bpy.context.window_manager
        self._event("MOUSEMOVE", "NOTHING", place)
        yield 0.0
        yield 0.0
        manager.clipboard = ""
        with self.override("UI"):
            if bpy.ops.ui.copy_python_command_button.poll():
                bpy.ops.ui.copy_python_command_button()
            elif bpy.ops.ui.copy_data_path_button.poll():
                bpy.ops.ui.copy_data_path_button(full_path=True)
        return _control_name(manager.clipboard)

    def reports(self) -> list[str]:
        """Return the messages of the Info editor, oldest first, without the calls of this module."""
        area = next(area for area in self.window.screen.areas if area.type not in ("VIEW_3D", "PROPERTIES"))
        before, manager = area.ui_type, bpy.context.window_manager
        area.ui_type = "INFO"
        try:
            manager.clipboard = ""
            region = next(region for region in area.regions if region.type == "WINDOW")
            with bpy.context.temp_override(window=self.window, screen=self.window.screen, area=area, region=region):
                bpy.ops.info.select_all(action="SELECT")
                bpy.ops.info.report_copy()
            return [line for line in manager.clipboard.splitlines() if line and not line.startswith(_OWN_LOOKS)]
        finally:
            area.ui_type = before

    def _event(self, kind: str, value: str, place: tuple[int, int], **options: Any) -> None:
        self.window.event_simulate(kind, value, x=int(place[0]), y=int(place[1]), **options)


def _control_name(copied: str) -> str:
    """The operator of "bpy.ops.a.b(x=1)", or the path after a data-block of 'bpy.data.scenes["S"].a.b'."""
    operator = re.match(r"bpy\.ops\.([\w.]+)\(", copied)
    path = re.match(r'bpy\.data\.\w+\["(?:[^"\\]|\\.)*"\]\.(.+)', copied)
    return operator[1] if operator else path[1] if path else copied


def _key_of(character: str) -> str:
    if character.isascii() and character.isalpha():
        return character.upper()
    return _DIGITS[int(character)] if character in "0123456789" else _CHARACTERS[character]


def drive(steps: Steps[None], at_end: Callable[[BaseException | None], None]) -> None:
    """Run a generator by a timer that survives loading a file; `at_end` gets the exception that ended it, or None."""

    def turn() -> float | None:
        try:
            return max(0.001, next(steps))
        except StopIteration:
            at_end(None)
        except BaseException as error:
            at_end(error)
        return None

    bpy.app.timers.register(turn, first_interval=0.5, persistent=True)
