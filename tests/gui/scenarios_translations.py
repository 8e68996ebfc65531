# SPDX-License-Identifier: GPL-3.0-or-later
"""The Speech tab and the preferences in German and Chinese: texts, glyphs, nothing cut at the default width."""

from __future__ import annotations

from collections.abc import Collection

import bpy
import stage
from checks import Figures, Scenario, heard
from harness import Gui, Steps

# Their names in the preferences, and those of the add-on's files.
LANGUAGES = {"de_DE": "de", "zh_HANS": "zh_HANS"}
# Panels of one picture, so that they fit on the screen.
_FIRST = ("speech", "face", "animate")
_GROUPS = {
    "face": ("face", "key_mapping", "transfer", "jaw_bone"),
    "animate": ("animate", "upper_face"),
    "result": ("result", "export"),
}
_SPEAKS = "speaks from frame"


def speaks_german(gui: Gui) -> Steps[Figures]:
    """The tab from the first look to the result, in German."""
    return (yield from _in_language(gui, "de_DE"))


def speaks_chinese(gui: Gui) -> Steps[Figures]:
    """The same in Simplified Chinese."""
    return (yield from _in_language(gui, "zh_HANS"))


def _in_language(gui: Gui, name: str) -> Steps[Figures]:
    view = bpy.context.preferences.view
    before = view.language
    panels = [cls for cls in stage.part("blender.registration").CLASSES if getattr(cls, "bl_category", "") == "Speech"]
    options = {cls: set(getattr(cls, "bl_options", ())) for cls in panels}
    try:
        view.language = name
        view.use_translate_interface = view.use_translate_tooltips = view.use_translate_reports = True
        _show_only(panels, _FIRST)
        yield from stage.fresh_scene(gui)
        return (yield from _tour(gui, LANGUAGES[name], panels))
    finally:
        view.language = before
        for cls in panels:
            cls.bl_options = options[cls]
        _show_only(panels, [cls.__name__.partition("_PT_")[2] for cls in panels])


def _show_only(panels: list[type], names: Collection[str]) -> None:
    """Register only these panels of the tab; a panel is open when it is drawn for the first time."""
    for cls in reversed(panels):
        if cls.is_registered:
            bpy.utils.unregister_class(cls)
    for cls in panels:
        if cls.__name__.partition("_PT_")[2] in names:
            bpy.utils.register_class(cls)


def _tour(gui: Gui, language: str, panels: list[type]) -> Steps[Figures]:
    translations = stage.part("blender.translations")
    catalogue, translate = translations.catalogue(language), bpy.app.translations.pgettext
    lost = [entry for entry, words in catalogue.items() if translate(entry, translations.CONTEXT) != words]
    assert not lost, f"Blender does not use {lost[:5]}"
    # Outside the add-on's context Blender's own translations win.
    others = {entry: translate(entry) for entry, words in catalogue.items() if translate(entry) not in (words, entry)}
    yield from gui.picture(f"{language}_empty")
    yield from stage.choose_audio(gui, stage.demo_speech())
    yield from gui.picture(f"{language}_cube")
    yield from stage.add_head(gui)
    yield from gui.picture(f"{language}_ready")
    already = len(gui.reports())
    with (yield from stage.start_held(gui)):
        yield 2.5
        yield from gui.picture(f"{language}_running")
    yield from stage.finish(gui)
    (speaks,) = (translation for entry, translation in catalogue.items() if _SPEAKS in entry)
    said = heard(gui, speaks.partition("{first_")[0].replace("{object_name}", stage.HEAD), already)
    gui.window.scene.wav2sem_upper_face.sway_object = stage.head()
    for cls in panels:
        cls.bl_options = set()
    for group, names in _GROUPS.items():
        _show_only(panels, names)
        yield 0.5
        yield from gui.picture(f"{language}_{group}")
    mapping = stage.part("blender.scene.key_mapping")
    mapping.store(stage.head(), mapping.guessed(stage.head()))
    _show_only(panels, _GROUPS["face"])
    yield 0.5
    yield from gui.picture(f"{language}_key_mapping")
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
