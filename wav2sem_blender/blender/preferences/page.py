# SPDX-License-Identifier: GPL-3.0-or-later
"""The preferences and their page: the engine in use, the Python with torch, the models, the recogniser.

Nothing here blocks.
"""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import EnumProperty, StringProperty

from ...errors import Text, UserError, report
from ...pipeline.recognise import check_folder
from ...worker.probe import Report
from ...worker.runtime import RECOGNISER, TORCH, Packages, disk_use, in_words
from ...worker.task import TaskProcess
from ..addon_preferences import ADDON, DEVICES
from ..animate import recognise
from ..tasks import in_process
from ..translations import CONTEXT, translated
from ..ui import widgets
from . import models, python

# Taken from the page's width, in points: the margins of the window and of two boxes.
_MARGINS_PT = 90
# Share of a progress row that is the bar; Cancel has the rest.
_BAR_SHARE = 0.8


class WAV2SEM_AP_preferences(bpy.types.AddonPreferences):
    """Device, models folder, the Python for larger models, and the speech recogniser."""

    bl_idname = ADDON

    device: EnumProperty(  # type: ignore[valid-type]
        name="Device", description="Device that computes the animation", items=DEVICES, translation_context=CONTEXT
    )
    models_folder: StringProperty(  # type: ignore[valid-type]
        name="Models Folder",
        description="Folder whose subfolders are models; the Animate panel offers them",
        subtype="DIR_PATH",
    )
    torch_python: StringProperty(  # type: ignore[valid-type]
        name="Python with PyTorch",
        description=(
            "Interpreter of an environment with torch, transformers, soundfile and soxr, for GPUs and larger models. "
            "Leave it empty to use the bundled engine"
        ),
        subtype="FILE_PATH",
    )
    package_index: StringProperty(  # type: ignore[valid-type]
        name="Package Index",
        description=(
            "URL of another package index from which pip may install a runtime. PyTorch's installation page "
            "lists one for each kind of GPU and one for the CPU. Leave it empty if unsure"
        ),
    )

    recogniser_folder: StringProperty(  # type: ignore[valid-type]
        name="Whisper Model",
        description=(
            "Folder of a Whisper model in CTranslate2's format: model.bin, config.json, tokenizer.json and a "
            "vocabulary. It recognises the words of a sound without a transcript"
        ),
        subtype="DIR_PATH",
    )

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the page."""
        draw_page(self.layout, context, self)


def draw_page(layout: bpy.types.UILayout, context: bpy.types.Context, chosen: Any) -> None:
    """Draw the whole page for the preferences `chosen`."""
    layout.use_property_split = True
    layout.use_property_decorate = False
    answer = python.answer(context)
    _draw_engine(_box(layout, "Engine"), context, chosen, answer)
    _draw_python(_box(layout, "Python for Larger Models and GPUs"), context, chosen, answer)
    text, is_error = python.message
    if text:
        _draw_text(layout, context, text, icon="ERROR" if is_error else "INFO")
    _draw_models(_box(layout, "Models"), context, chosen)
    _draw_recogniser(_box(layout, "Speech Recogniser"), context, chosen, answer)


def engine_lines(answer: Report | str | None, own_python: bool) -> list[tuple[str, str]]:
    """Icon and text of each line about what computes the animation."""
    if answer is None:
        return [("TIME", "Checking the Python in use")]
    if isinstance(answer, str):
        return [("ERROR", answer)]
    lines: list[tuple[str, str]] = []
    if answer.bundled:
        lines.append(("CHECKMARK", Text("Bundled model: {bundled}", bundled=answer.bundled)))
    if answer.larger:
        lines.append(("CHECKMARK", Text("Other models: {larger}", larger=answer.larger)))
    elif answer.missing_for_torch and own_python:
        lines.append(("INFO", "Other models need a Python with torch; choose or install one below"))
    elif answer.missing_for_torch:
        lines.append(("ERROR", python.missing_modules(answer)))
    if answer.trouble:
        lines.append(("ERROR", answer.trouble))
    return lines


def _draw_text(layout: bpy.types.UILayout, context: bpy.types.Context, text: str, icon: str = "NONE") -> None:
    widgets.draw_text(layout, context, text, icon, _MARGINS_PT)


def _box(layout: bpy.types.UILayout, title: str) -> bpy.types.UILayout:
    box = layout.box()
    box.label(text=title)
    return box


def _draw_engine(box: Any, context: bpy.types.Context, chosen: Any, answer: Report | str | None) -> None:
    for icon, text in engine_lines(answer, own_python=not chosen.torch_python):
        _draw_text(box, context, text, icon=icon)
    box.prop(chosen, "device")


def _draw_python(box: Any, context: bpy.types.Context, chosen: Any, answer: Report | str | None) -> None:
    box.prop(chosen, "torch_python", placeholder="Blender's Own")
    row = box.row(align=True)
    row.operator(python.WAV2SEM_OT_use_python.bl_idname, icon="FILE_FOLDER", text="Use This Python...")
    row.operator(python.WAV2SEM_OT_use_own_python.bl_idname, icon="LOOP_BACK")
    row.operator(python.WAV2SEM_OT_check_python.bl_idname, icon="FILE_REFRESH")
    if isinstance(answer, Report) and answer.missing_for_torch and chosen.torch_python:
        copy = box.operator(python.WAV2SEM_OT_copy_text.bl_idname, icon="COPYDOWN", text="Copy the Command")
        copy.text = python.pip_command(answer)
    checking = in_process.current(python.USE)
    if checking is not None:
        _draw_progress(box, python.USE, checking)
    box.separator(type="LINE")
    _draw_runtime(box, context, chosen, TORCH)


def _draw_runtime(box: Any, context: bpy.types.Context, chosen: Any, packages: Packages) -> None:
    """An environment that the add-on installs."""
    installing = in_process.current(python.task_of(python.INSTALL, packages))
    if installing is not None:
        _draw_progress(box, python.task_of(python.INSTALL, packages), installing)
        return
    title = packages.title
    if in_process.current(python.task_of(python.REMOVE, packages)) is not None:
        box.label(text=translated(Text("Removing {runtime}", runtime=title)), icon="TIME")
        return
    made = python.runtime(packages)
    install, remove = python.WAV2SEM_OT_install_runtime.bl_idname, python.WAV2SEM_OT_remove_runtime.bl_idname
    if made is not None and made.is_complete:
        size = in_words(made.size_bytes)
        words = Text("The {runtime} is installed: {size} in {folder}", runtime=title, size=size, folder=made.folder)
        _draw_text(box, context, words, icon="CHECKMARK")
        row = box.row()
        if made.is_outdated:
            _draw_text(box, context, "This version of the add-on was tested with newer packages.", icon="INFO")
            row.operator(install, icon="IMPORT", text="Update").name = packages.name
        elif packages is TORCH and chosen.torch_python != str(made.python):
            use = row.row()
            use.operator_context = "EXEC_DEFAULT"  # the file is known
            use.operator(python.WAV2SEM_OT_use_python.bl_idname, text="Use It").filepath = str(made.python)
        row.operator(remove, icon="TRASH", text="Remove").name = packages.name
        return
    unfinished = made is not None and made.is_unfinished
    if unfinished:
        size_bytes = python.unfinished_bytes(packages)
        text: str = "The last installation was not finished; you can continue it"
        if size_bytes:
            text = Text("The last installation stopped after {size}; you can continue it", size=in_words(size_bytes))
        _draw_text(box, context, text, icon="INFO")
    else:
        _draw_text(box, context, _expected_size(chosen, packages), icon="INFO")
    row = box.row()
    label = "Continue Installation" if unfinished else packages.button
    row.operator(install, icon="IMPORT", text=label).name = packages.name
    if unfinished:
        row.operator(remove, icon="TRASH", text="Remove").name = packages.name
    if not python.is_online():
        _draw_text(box, context, "The installation needs the internet. Allow Online Access in System > Network first")
    box.prop(chosen, "package_index", placeholder="pip's Default")


def _expected_size(chosen: Any, packages: Packages) -> Text:
    size = packages.expected_size(bool(chosen.package_index))
    values = {"download": in_words(size.download_bytes), "disk": in_words(size.disk_bytes)}
    if chosen.package_index:
        return Text("About {download} to download and {disk} on disk; another index may differ", **values)
    return Text("About {download} to download and {disk} on disk: {content}", content=size.content, **values)


def _draw_recogniser(box: Any, context: bpy.types.Context, chosen: Any, answer: Report | str | None) -> None:
    """The model that recognises words, and where it runs."""
    box.prop(chosen, "recogniser_folder")
    for icon, text in recogniser_lines(context, chosen, answer):
        _draw_text(box, context, text, icon=icon)
    box.separator(type="LINE")
    _draw_runtime(box, context, chosen, RECOGNISER)


def recogniser_lines(context: bpy.types.Context, chosen: Any, answer: Report | str | None) -> list[tuple[str, str]]:
    """Icon and text of each line about the recogniser's model and its Python."""
    lines: list[tuple[str, str]] = []
    if chosen.recogniser_folder:
        try:
            folder = recognise.chosen_folder(context)
            check_folder(folder)
            text = Text("Whisper model: {size}; OpenAI's are under the MIT licence", size=in_words(disk_use(folder)))
            lines.append(("CHECKMARK", text))
        except (OSError, UserError) as error:
            lines.append(("ERROR", report(error)))
    if recognise.installed_runtime() is not None or not isinstance(answer, Report):
        return lines
    if answer.recogniser:
        text = Text("{library} in {python}", library=answer.recogniser, python=answer.executable)
        return [*lines, ("CHECKMARK", text)]
    if answer.recogniser_trouble:
        return [*lines, ("ERROR", answer.recogniser_trouble)]
    return [*lines, ("INFO", "The Python in use has no faster-whisper; install the Recogniser Runtime")]


def _draw_progress(box: Any, name: str, task: TaskProcess) -> None:
    minutes, seconds = divmod(int(task.elapsed_s), 60)
    row = box.split(factor=_BAR_SHARE)
    row.progress(factor=task.fraction, text=f"{translated(task.text)}   {minutes}:{seconds:02d}")
    row.operator(python.WAV2SEM_OT_cancel_task.bl_idname, icon="X").name = name


def _draw_models(box: Any, context: bpy.types.Context, chosen: Any) -> None:
    box.prop(chosen, "models_folder")
    for model in models.known(context):
        _draw_model(box.box(), context, model)
    importing = in_process.current(models.IMPORT)
    if importing is not None:
        _draw_progress(box, models.IMPORT, importing)
        return
    row = box.row(align=True)
    row.operator(models.WAV2SEM_OT_import_checkpoint.bl_idname, icon="IMPORT", text="Import Checkpoint...")
    row.operator(models.WAV2SEM_OT_refresh_models.bl_idname, icon="FILE_REFRESH")
    if models.models_folder(context) is None:
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
    license_name, size = model.license or "licence not stated", in_words(model.size_bytes)
    details = Text("{size}, runs on {engine}, {license}", size=size, engine=model.engine, license=license_name)
    _draw_text(box, context, details, icon="BLANK1")
    text, is_error = models.verify_result(model)
    if text:
        _draw_text(box, context, text, icon="ERROR" if is_error else "INFO")


CLASSES = (WAV2SEM_AP_preferences,)
