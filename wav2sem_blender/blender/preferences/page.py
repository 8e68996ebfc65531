# SPDX-License-Identifier: GPL-3.0-or-later
"""How the preferences' page looks: the engine in use, the Python with torch, the models. Nothing here waits."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import EnumProperty, StringProperty

from ...errors import Text
from ...worker.chore import Chore
from ...worker.probe import Report
from ...worker.runtime import Runtime, expected_size, in_words
from ..addon_preferences import ADDON, DEVICES
from ..tasks import in_process
from ..translations import CONTEXT, translated
from ..ui import widgets
from . import models, python

# Of the page's width, in points: the margins of the window and of two boxes.
_MARGINS_PT = 90
# Of the row in which something is running, beside its Cancel.
_BAR_SHARE = 0.8


class WAV2SEM_AP_preferences(bpy.types.AddonPreferences):
    """Where larger models and their Python are found."""

    bl_idname = ADDON

    device: EnumProperty(  # type: ignore[valid-type]
        name="Device", description="What computes the animation", items=DEVICES, translation_context=CONTEXT
    )
    models_folder: StringProperty(  # type: ignore[valid-type]
        name="Models Folder", description="Folder whose subfolders are models, offered in the panel", subtype="DIR_PATH"
    )
    torch_python: StringProperty(  # type: ignore[valid-type]
        name="Python with PyTorch",
        description=(
            "Interpreter of an environment with torch, transformers, soundfile and soxr, for GPUs and larger models. "
            "Leave it empty to use the engine that comes with the add-on"
        ),
        subtype="FILE_PATH",
    )
    package_index: StringProperty(  # type: ignore[valid-type]
        name="Package Index",
        description=(
            "Address of an index that pip asks besides its own when it installs the torch runtime: PyTorch's "
            "installation page names those for other GPUs, and for the CPU alone. Empty for what suits most"
        ),
    )

    def draw(self, context: bpy.types.Context) -> None:
        """The preferences' page."""
        draw(self.layout, context, self)


def draw(layout: bpy.types.UILayout, context: bpy.types.Context, chosen: Any) -> None:
    """The whole page."""
    layout.use_property_split = True
    layout.use_property_decorate = False
    answer = python.answer(context)
    _draw_engine(_box(layout, "Engine"), context, chosen, answer)
    _draw_python(_box(layout, "Python for Larger Models and GPUs"), context, chosen, answer)
    text, complaint = python.message
    if text:
        _say(layout, context, text, icon="ERROR" if complaint else "INFO")
    _draw_models(_box(layout, "Models"), context, chosen)


def engine_in_words(answer: Report | str | None, own_python: bool) -> list[tuple[str, str]]:
    """Icon and sentence for each line about what computes the animation."""
    if answer is None:
        return [("TIME", "Looking at the Python in use")]
    if isinstance(answer, str):
        return [("ERROR", answer)]
    lines = []
    if answer.bundled:
        lines.append(("CHECKMARK", Text("Bundled model: {bundled}", bundled=answer.bundled)))
    if answer.larger:
        lines.append(("CHECKMARK", Text("Other models: {larger}", larger=answer.larger)))
    elif answer.missing_for_torch and own_python:
        lines.append(("INFO", "Other models: they need a Python with torch; choose one below, or install it there"))
    elif answer.missing_for_torch:
        lines.append(("ERROR", python.lacks(answer)))
    if answer.trouble:
        lines.append(("ERROR", answer.trouble))
    return lines


def _say(layout: bpy.types.UILayout, context: bpy.types.Context, text: str, icon: str = "NONE") -> None:
    widgets.say(layout, context, text, icon, _MARGINS_PT)


def _box(layout: bpy.types.UILayout, title: str) -> bpy.types.UILayout:
    box = layout.box()
    box.label(text=title)
    return box


def _draw_engine(box: Any, context: bpy.types.Context, chosen: Any, answer: Report | str | None) -> None:
    for icon, text in engine_in_words(answer, own_python=not chosen.torch_python):
        _say(box, context, text, icon=icon)
    box.prop(chosen, "device")


def _draw_python(box: Any, context: bpy.types.Context, chosen: Any, answer: Report | str | None) -> None:
    box.prop(chosen, "torch_python", placeholder="Blender's Own")
    row = box.row(align=True)
    row.operator(python.WAV2SEM_OT_use_python.bl_idname, icon="FILE_FOLDER", text="Use This Python...")
    row.operator(python.WAV2SEM_OT_use_own_python.bl_idname, icon="LOOP_BACK")
    row.operator(python.WAV2SEM_OT_check_python.bl_idname, icon="FILE_REFRESH")
    if isinstance(answer, Report) and answer.missing_for_torch and chosen.torch_python:
        copy = box.operator(python.WAV2SEM_OT_copy_text.bl_idname, icon="COPYDOWN", text="Copy the Command")
        copy.text = python.remedy(answer)
    looking = in_process.current(python.USE)
    if looking is not None:
        _draw_progress(box, python.USE, looking)
    box.separator(type="LINE")
    _draw_runtime(box, context, chosen)


def _draw_runtime(box: Any, context: bpy.types.Context, chosen: Any) -> None:
    """The environment that the add-on makes itself."""
    installing, removing = in_process.current(python.INSTALL), in_process.current(python.REMOVE)
    if installing is not None:
        _draw_progress(box, python.INSTALL, installing)
        return
    if removing is not None:
        box.label(text="Removing the Torch Runtime", icon="TIME")
        return
    folder = python.folder()
    made = Runtime(folder) if folder is not None else None
    if made is not None and made.is_complete:
        _say(
            box,
            context,
            Text(
                "Torch runtime: {in_words} in {folder}",
                in_words=in_words(made.size_bytes),
                folder=made.folder,
            ),
            icon="CHECKMARK",
        )
        row = box.row()
        if made.is_outdated:
            _say(box, context, "This release of the add-on was tested with newer versions.", icon="INFO")
            row.operator(python.WAV2SEM_OT_install_runtime.bl_idname, icon="IMPORT", text="Update")
        elif chosen.torch_python != str(made.python):
            use = row.row()
            use.operator_context = "EXEC_DEFAULT"  # which file is no question
            use.operator(python.WAV2SEM_OT_use_python.bl_idname, text="Use It").filepath = str(made.python)
        row.operator(python.WAV2SEM_OT_remove_runtime.bl_idname, icon="TRASH", text="Remove")
        return
    unfinished = made is not None and made.is_unfinished
    if unfinished:
        size_bytes = python.unfinished_bytes()
        so_far = Text(" ({in_words} so far)", in_words=in_words(size_bytes)) if size_bytes else ""
        _say(box, context, Text("An installation was not finished{so_far}; it can go on", so_far=so_far), icon="INFO")
    else:
        _say(box, context, _size_in_words(chosen), icon="INFO")
    row = box.row()
    text = "Go On Installing" if unfinished else "Install Torch Runtime"
    row.operator(python.WAV2SEM_OT_install_runtime.bl_idname, icon="IMPORT", text=text)
    if unfinished:
        row.operator(python.WAV2SEM_OT_remove_runtime.bl_idname, icon="TRASH", text="Remove")
    if not python.is_online():
        _say(box, context, "Installing downloads from the internet. Allow Online Access in System > Network first")
    box.prop(chosen, "package_index", placeholder="pip's Own")


def _size_in_words(chosen: Any) -> str:
    size = expected_size(bool(chosen.package_index))
    amount = Text(
        "About {in_words} to download and {in_words_2} on the disk",
        in_words=in_words(size.download_bytes),
        in_words_2=in_words(size.disk_bytes),
    )
    if chosen.package_index:
        return Text("{amount}, or what the other index has", amount=amount)
    return Text("{amount}: torch and transformers for {device}", amount=amount, device=size.device)


def _draw_progress(box: Any, name: str, chore: Chore) -> None:
    minutes, seconds = divmod(int(chore.elapsed_s), 60)
    row = box.split(factor=_BAR_SHARE)
    row.progress(factor=chore.fraction, text=f"{translated(chore.text)}   {minutes}:{seconds:02d}")
    row.operator(python.WAV2SEM_OT_cancel_chore.bl_idname, icon="X").name = name


def _draw_models(box: Any, context: bpy.types.Context, chosen: Any) -> None:
    box.prop(chosen, "models_folder")
    for model in models.of(context):
        _draw_model(box.box(), context, model)
    importing = in_process.current(models.IMPORT)
    if importing is not None:
        _draw_progress(box, models.IMPORT, importing)
        return
    row = box.row(align=True)
    row.operator(models.WAV2SEM_OT_import_checkpoint.bl_idname, icon="IMPORT", text="Import Checkpoint...")
    row.operator(models.WAV2SEM_OT_refresh_models.bl_idname, icon="FILE_REFRESH")
    if models.place(context) is None:
        box.label(text="Choose a models folder to import into", icon="INFO")


def _draw_model(box: Any, context: bpy.types.Context, model: models.Model) -> None:
    bundled = model.name == models.BUNDLED
    row = box.row()
    row.label(
        text=translated(Text("{model} (bundled)", model=model.name)) if bundled else model.name,
        icon="OUTLINER_DATA_SPEAKER",
        translate=False,
    )
    row.operator(models.WAV2SEM_OT_verify_model.bl_idname, icon="CHECKMARK").name = model.name
    if not bundled:
        row.operator(models.WAV2SEM_OT_remove_model.bl_idname, icon="TRASH", text="Remove").name = model.name
    license_name = model.license or "licence not stated"
    _say(
        box,
        context,
        Text(
            "{in_words}, runs on {engine}, {license_name}",
            in_words=in_words(model.size_bytes),
            engine=model.engine,
            license_name=license_name,
        ),
        icon="BLANK1",
    )
    text, bad = models.said(model)
    if text:
        _say(box, context, text, icon="ERROR" if bad else "INFO")


CLASSES = (WAV2SEM_AP_preferences,)
