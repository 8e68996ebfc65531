# SPDX-License-Identifier: GPL-3.0-or-later
"""The Speech tab and the preferences' page in German and in Chinese: words, glyphs, nothing cut at default width."""

from __future__ import annotations

from contextlib import suppress

import bpy
import stage
from checks import Figures, Scenario, heard
from harness import Gui, Steps

# As the preferences name them, and as the add-on's files are named.
LANGUAGES = {"de_DE": "de", "zh_HANS": "zh_HANS"}
_SPEAKS = '"{0}" speaks from frame {1} to {2}: {3} curves in the action "{4}"'


def speaks_german(gui: Gui) -> Steps[Figures]:
    """The tab from the first look to the result, in German."""
    return (yield from _in_language(gui, "de_DE"))


def speaks_chinese(gui: Gui) -> Steps[Figures]:
    """The same in Simplified Chinese."""
    return (yield from _in_language(gui, "zh_HANS"))


def _in_language(gui: Gui, name: str) -> Steps[Figures]:
    view = bpy.context.preferences.view
    before = view.language
    try:
        view.language = name
        view.use_translate_interface = view.use_translate_tooltips = view.use_translate_reports = True
        return (yield from _tour(gui, LANGUAGES[name]))
    finally:
        view.language = before


def _tour(gui: Gui, language: str) -> Steps[Figures]:
    translations = stage.part("blender.translations")
    catalogue, translate = translations.catalogue(language), bpy.app.translations.pgettext
    lost = [entry for entry, words in catalogue.items() if translate(entry, translations.CONTEXT) != words]
    assert not lost, f"Blender does not take up {lost[:5]}"
    # Elsewhere Blender's own words come first.
    others = {entry: translate(entry) for entry, words in catalogue.items() if translate(entry) not in (words, entry)}
    yield from gui.picture(f"{language}_empty")
    yield from stage.choose_audio(gui, stage.demo_speech())
    yield from gui.picture(f"{language}_cube")
    yield from stage.add_head(gui)
    yield from gui.picture(f"{language}_ready")
    already = len(gui.reports())
    yield from stage.start(gui)
    yield from gui.until(lambda: stage.fraction() > 0.2 or not stage.running(), "progress")
    yield from gui.picture(f"{language}_running")
    yield from stage.finish(gui)
    said = heard(gui, catalogue[_SPEAKS].partition("{1}")[0].replace("{0}", stage.HEAD), already)
    gui.window.scene.wav2sem_upper_face.sway_object = stage.head()
    yield from gui.open_panels()
    yield from gui.picture(f"{language}_panels")
    with gui.override("UI"), suppress(RuntimeError):
        bpy.ops.view2d.scroll_down(page=True)
        bpy.ops.view2d.scroll_down(page=True)
    yield from gui.picture(f"{language}_result")
    with gui.override():
        bpy.ops.preferences.addon_show(module=stage.MODULE)
    yield 3.0
    yield from gui.picture(f"{language}_preferences")
    window = next(window for window in bpy.context.window_manager.windows if window != gui.window)
    with bpy.context.temp_override(window=window):
        bpy.ops.wm.window_close()
    yield 0.3
    return {"entries": len(catalogue), "in Blender's own words": others, "said": said}


ALL: tuple[Scenario, ...] = (speaks_german, speaks_chinese)
