# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python and engine compute the animation: looking at them, choosing another one, installing one with torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import bpy
from bpy.props import StringProperty

from ...errors import Text
from ...worker import environment
from ...worker.chore import Chore
from ...worker.environment import REQUIRED_MODULES, TORCH_MODULES, WorkerEnvironment
from ...worker.probe import Report
from ...worker.runtime import Runtime
from .. import addon_preferences
from ..animate import jobs
from ..tasks import in_process, running
from ..ui.widgets import AddonOperator

PROBE, USE, INSTALL, MEASURE, REMOVE = "probe", "use", "install", "measure", "remove"
# torch itself loads in seconds, but a cold disk or a busy machine makes minutes of them.
_PROBE_LIMIT_S = 600.0
# Handed to worker.install; tests install something small from a folder.
INSTALL_OPTIONS: tuple[str, ...] = ()

_Asked = tuple[str, str]

# What a Python said, or why it said nothing, by its path in the preferences and the device.
_answers: dict[_Asked, Report | str] = {}
_asking: _Asked | None = None
_unfinished_bytes: int | None = None

# The last sentence about what was tried here, and whether it is a complaint.
message: tuple[str, bool] = ("", False)


def folder() -> Path | None:
    """Where the torch runtime is, or would be; None where the add-on is no extension and so has no folder."""
    try:
        return Path(bpy.utils.extension_path_user(addon_preferences.ADDON, path="torch_runtime"))
    except ValueError:
        return None


def is_online() -> bool:
    """Whether the user lets Blender use the internet."""
    return bool(bpy.app.online_access)


def answer(context: bpy.types.Context) -> Report | str | None:
    """What the Python in use can do, or why it cannot be used; None while it is being asked, which this starts."""
    known = _answers.get(_to_ask(context))
    unknown = known is None or (_unfinished_bytes is None and _is_unfinished())
    if unknown and not bpy.app.timers.is_registered(look):
        # Not from within a drawing.
        bpy.app.timers.register(look, first_interval=0.01)
    return known


def unfinished_bytes() -> int | None:
    """Disk use of a half-made runtime, None while it is being measured."""
    return _unfinished_bytes


def look() -> None:
    """Ask what is not known yet."""
    global _asking
    asked = _to_ask(bpy.context)
    if asked not in _answers and (in_process.current(PROBE) is None or _asking != asked):
        _asking = asked
        try:
            python, device = asked
            chore = _probe(environment.from_python(python) if python else environment.embedded(), device)
        except OSError as error:
            _answers[asked] = str(error)
            in_process.redraw()
        else:
            in_process.start(PROBE, chore, lambda result, error: _answers.update({asked: _understood(result, error)}))
    if _unfinished_bytes is None and _is_unfinished() and in_process.current(MEASURE) is None:
        in_process.start(MEASURE, _installer("measure", folder()), _take_measure)


def forget() -> None:
    """Ask again when the page is drawn next."""
    global _unfinished_bytes
    _answers.clear()
    _unfinished_bytes = None
    in_process.redraw()


def shut_down() -> None:
    """End what is being done."""
    in_process.shut_down()
    if bpy.app.timers.is_registered(look):
        bpy.app.timers.unregister(look)


def say(text: str, complaint: bool = False) -> None:
    """Show a sentence in the page."""
    global message
    message = text, complaint
    in_process.redraw()


def _to_ask(context: bpy.types.Context) -> _Asked:
    chosen = addon_preferences.get(context)
    return bpy.path.abspath(chosen.torch_python), chosen.device


def _probe(worker: WorkerEnvironment, device: str) -> Chore:
    return Chore(worker.run("worker.probe", device), worker.variables(), "Looking at the Python", _PROBE_LIMIT_S)


def _understood(result: dict[str, Any], error: str) -> Report | str:
    if error:
        return error
    return Report(**result) if result else "It gave no answer, so it is no Python. Choose another program."


def _installer(verb: str, target: Path | None, *options: str) -> Chore:
    own = environment.embedded()
    return Chore(own.run("worker.install", verb, str(target), *options), own.variables(), "Starting")


def _is_unfinished() -> bool:
    place = folder()
    return place is not None and Runtime(place).is_unfinished and in_process.current(INSTALL) is None


def _take_measure(result: dict[str, Any], _error: str) -> None:
    global _unfinished_bytes
    _unfinished_bytes = int(result.get("size_bytes", 0))


class WAV2SEM_OT_use_python(AddonOperator, bpy.types.Operator):
    """Choose a Python with torch, transformers, soundfile and soxr; it is looked at first, and used when it has them"""

    bl_idname = "wav2sem.use_python"
    bl_label = "Use This Python"
    bl_options: ClassVar = {"INTERNAL"}

    filepath: StringProperty(name="Python", description="The interpreter", subtype="FILE_PATH")  # type: ignore[valid-type]

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """The add-on must have preferences."""
        return _no_preferences_reason(context)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        """Ask for the file."""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Look at it; the preferences change when it has answered."""
        python, device = bpy.path.abspath(self.filepath), addon_preferences.get(context).device
        say("")

        def use(result: dict[str, Any], error: str) -> None:
            report = _understood(result, error)
            if isinstance(report, str):
                say(Text("{python} is not used. {report}", python=python, report=report), complaint=True)
            elif report.missing_for_torch:
                say(Text("{python} is not used: {lacks}", python=python, lacks=lacks(report)), complaint=True)
            elif not report.larger:
                say(Text("{python} is not used: {trouble}", python=python, trouble=report.trouble), complaint=True)
            else:
                _answers[(python, device)] = report
                _set_python(python)
                say(Text("{python} is used from now on.", python=python))

        try:
            in_process.start(USE, _probe(environment.from_python(python), device), use)
        except OSError as error:
            return self._failed(error)
        return {"FINISHED"}


class WAV2SEM_OT_use_own_python(AddonOperator, bpy.types.Operator):
    """Use the engine that comes with the add-on again"""

    bl_idname = "wav2sem.use_own_python"
    bl_label = "Use Blender's Python"
    bl_options: ClassVar = {"INTERNAL"}

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Another one must be in use."""
        if not addon_preferences.get(context).torch_python:
            return "Blender's Python is in use"
        return _no_preferences_reason(context)

    def execute(self, _context: bpy.types.Context) -> set[str]:
        """Empty the field."""
        _set_python("")
        say("")
        return {"FINISHED"}


class WAV2SEM_OT_check_python(bpy.types.Operator):
    """Look at the Python again, after something was installed there"""

    bl_idname = "wav2sem.check_python"
    bl_label = "Check Again"
    bl_options: ClassVar = {"INTERNAL"}

    def execute(self, _context: bpy.types.Context) -> set[str]:
        """Forget what it said."""
        forget()
        if bpy.app.background:
            look()
        return {"FINISHED"}


class WAV2SEM_OT_copy_text(bpy.types.Operator):
    """Copy this command, to be pasted into a terminal"""

    bl_idname = "wav2sem.copy_text"
    bl_label = "Copy Command"
    bl_options: ClassVar = {"INTERNAL"}

    text: StringProperty(name="Text", description="What is copied")  # type: ignore[valid-type]

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Into the clipboard."""
        context.window_manager.clipboard = self.text
        return {"FINISHED"}


class WAV2SEM_OT_install_runtime(AddonOperator, bpy.types.Operator):
    """Make a Python environment with torch in the extension's folder, for larger models and GPUs"""

    bl_idname = "wav2sem.install_runtime"
    bl_label = "Install Torch Runtime"
    bl_options: ClassVar = {"INTERNAL"}

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Online access, and a folder for it."""
        if not is_online():
            return "Online access is off; allow it in Preferences > System > Network"
        return _no_change_reason(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start it, or go on with it."""
        place, chosen = folder(), addon_preferences.get(context)
        assert place is not None
        runtime = Runtime(place)
        # What is half-made must never be used.
        if chosen.torch_python == str(runtime.python):
            jobs.shut_down()
            _set_python("")
        say("")

        def use(result: dict[str, Any], error: str) -> None:
            forget()
            if error:
                say(error, complaint=True)
            else:
                _set_python(result["python"])
                say("The torch runtime is installed and in use.")

        index = ("--index", chosen.package_index) if chosen.package_index else ()
        try:
            in_process.start(INSTALL, _installer("install", place, *index, *INSTALL_OPTIONS), use)
        except OSError as error:
            return self._failed(error)
        return {"FINISHED"}


class WAV2SEM_OT_remove_runtime(AddonOperator, bpy.types.Operator):
    """Delete the torch runtime from the extension's folder"""

    bl_idname = "wav2sem.remove_runtime"
    bl_label = "Remove Torch Runtime"
    bl_options: ClassVar = {"INTERNAL"}

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """There must be one, and nothing may be using it."""
        reason = _no_change_reason(context)
        place = folder()
        if not reason and (place is None or not place.is_dir()):
            return "There is no torch runtime"
        return reason

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Ask first."""
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Out of the way at once, deleted beside the interface."""
        place = folder()
        assert place is not None
        if addon_preferences.get(context).torch_python == str(Runtime(place).python):
            _set_python("")
        # It may hold the environment's files open.
        jobs.shut_down()
        # What an earlier one left there, when Blender ended meanwhile, goes along.
        trash = place.with_name(".removed")
        try:
            trash.mkdir(exist_ok=True)
            place.rename(trash / uuid4().hex)
            in_process.start(REMOVE, _installer("remove", trash), _removed)
        except OSError as error:
            return self._failed(
                Text(
                    "{place} cannot be removed ({reason}). Close what uses it.",
                    place=place,
                    reason=error.strerror or error,
                )
            )
        return {"FINISHED"}


def _removed(_result: dict[str, Any], error: str) -> None:
    forget()
    say(error or "The torch runtime is removed.", complaint=bool(error))


class WAV2SEM_OT_cancel_chore(bpy.types.Operator):
    """End it and all the processes that it started; what was downloaded is kept, and the next try goes on from there"""

    bl_idname = "wav2sem.cancel_chore"
    bl_label = "Cancel"
    bl_options: ClassVar = {"INTERNAL"}

    name: StringProperty(name="Name", description="Which one")  # type: ignore[valid-type]

    def execute(self, _context: bpy.types.Context) -> set[str]:
        """Nothing half-done is used."""
        in_process.cancel(self.name)
        forget()
        say("Cancelled.")
        return {"FINISHED"}


def lacks(report: Report) -> str:
    """What a chosen Python lacks, as a sentence with the remedy."""
    first, *others = report.missing_for_torch
    for name in others:
        first = Text("{first} and no {name}", first=first, name=name)
    return Text(
        "This Python has no {first}. Install what is missing there: {remedy}",
        first=first,
        remedy=remedy(report),
    )


def remedy(report: Report) -> str:
    """What to type."""
    known = (*TORCH_MODULES, *REQUIRED_MODULES)
    return environment.pip_command(report.executable, [name for name in known if name in report.missing_for_torch])


def _set_python(python: str) -> None:
    chosen = addon_preferences.get(bpy.context)
    if chosen.torch_python != python:
        chosen.torch_python = python
        # So that Blender keeps it, where it saves the preferences by itself.
        bpy.context.preferences.is_dirty = True


def _no_preferences_reason(context: bpy.types.Context) -> str:
    return "" if addon_preferences.are_stored(context) else "The add-on is not installed, so it has no preferences"


def _no_change_reason(context: bpy.types.Context) -> str:
    if wait := running.why_wait_for_its_end():
        return wait
    if in_process.current(INSTALL) is not None:
        return "The torch runtime is being installed"
    if in_process.current(REMOVE) is not None:
        return "The torch runtime is being removed"
    if folder() is None:
        return "Only an installed extension has a folder for it"
    return _no_preferences_reason(context)


CLASSES = (
    WAV2SEM_OT_use_python,
    WAV2SEM_OT_use_own_python,
    WAV2SEM_OT_check_python,
    WAV2SEM_OT_copy_text,
    WAV2SEM_OT_install_runtime,
    WAV2SEM_OT_remove_runtime,
    WAV2SEM_OT_cancel_chore,
)
